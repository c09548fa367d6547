//! S3 against a scripted HTTP server: each test says, answer by answer, what a slow,
//! refusing or lying server sends, and what the store makes of it.

#![allow(clippy::unwrap_used)] // a test's panic is its verdict
#![allow(clippy::single_range_in_vec_init)] // one range is a list of ranges here

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use vexlake_store::{Created, Store, StoreConfig, StoreErrorKind, Swapped};

/// One answer; the server closes the connection after each.
#[derive(Clone)]
enum Answer {
    /// Status line and headers, then a body with its true length.
    Whole(&'static str, &'static str),
    /// The same with this length announced.
    Announced(&'static str, usize, &'static str),
    /// Closes without a word after it has read the request.
    Nothing,
}

struct Server {
    store: Store,
    served: Arc<AtomicUsize>,
    /// Of all requests, in small letters.
    heads: Arc<Mutex<Vec<String>>>,
}

/// Gives `answers` in turn, then the last one for ever.
async fn serve(answers: Vec<Answer>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let turn = count.fetch_add(1, Ordering::SeqCst);
            let answer = answers[turn.min(answers.len() - 1)].clone();
            tokio::spawn(reply(stream, answer, Arc::clone(&seen)));
        }
    });
    Server {
        store: open(&endpoint).await,
        served,
        heads,
    }
}

async fn open(endpoint: &str) -> Store {
    let config = StoreConfig {
        endpoint: Some(endpoint.to_owned()),
        access_key: Some("key".into()),
        secret_key: Some("secret".into()),
        ..StoreConfig::at("s3://bucket/lake")
    };
    Store::open(&config).await.unwrap()
}

/// Reads a whole request, its body by the declared length, and answers its head; none where
/// it broke off.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let (mut head, mut left) = (String::new(), None);
    while left != Some(0) {
        let read = stream.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            return None;
        }
        if let Some(bytes) = &mut left {
            *bytes -= read;
            continue;
        }
        request.extend_from_slice(&buffer[..read]);
        let Some(end) = request.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        head = String::from_utf8_lossy(&request[..end]).to_lowercase();
        let declared = head.lines().find_map(|line| {
            line.strip_prefix("content-length:")?
                .trim()
                .parse::<usize>()
                .ok()
        });
        left = Some(declared.unwrap_or(0) - (request.len() - end - 4));
    }
    Some(head)
}

async fn reply(mut stream: TcpStream, answer: Answer, heads: Arc<Mutex<Vec<String>>>) {
    let Some(head) = read_request(&mut stream).await else {
        return;
    };
    heads.lock().unwrap().push(head);
    let (head, length, body) = match answer {
        Answer::Nothing => return,
        Answer::Whole(head, body) => (head, body.len(), body),
        Answer::Announced(head, length, body) => (head, length, body),
    };
    let text =
        format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    // A client that went away is what some of the tests are about.
    let _ = stream.write_all(text.as_bytes()).await;
}

const OK: &str = "200 OK\r\nETag: \"t1\"\r\nLast-Modified: Tue, 01 Jan 2030 00:00:00 GMT";
const PARTIAL: &str = "206 Partial Content\r\nETag: \"t1\"\r\nLast-Modified: Tue, 01 Jan 2030 00:00:00 GMT\r\nContent-Range: bytes 2-4/10";

fn body() -> Bytes {
    Bytes::from_static(b"body")
}

#[tokio::test]
async fn should_repeat_reads_over_server_errors_and_broken_bodies() {
    let troubles = [
        Answer::Whole("503 Slow Down", ""),
        Answer::Whole("500 Internal Server Error", ""),
        Answer::Whole("429 Too Many Requests", ""),
        Answer::Announced(OK, 10, "01234"),
        Answer::Nothing,
    ];
    for trouble in troubles {
        let server = serve(vec![trouble, Answer::Whole(OK, "0123456789")]).await;
        assert_eq!(server.store.get("k").await.unwrap(), "0123456789");
        assert_eq!(server.served.load(Ordering::SeqCst), 2);
        let usage = server.store.usage();
        assert_eq!((usage.gets, usage.retries, usage.errors), (2, 1, 1));
    }
}

#[tokio::test]
async fn should_never_take_another_range_for_the_one_it_asked_for() {
    let right = serve(vec![Answer::Whole(PARTIAL, "234")]).await;
    assert_eq!(right.store.get_ranges("k", &[2..5]).await.unwrap(), ["234"]);
    // The whole object, another range, and a short one, each followed by the truth.
    let wrong = [
        Answer::Whole(OK, "0123456789"),
        Answer::Whole(
            "206 Partial Content\r\nETag: \"t1\"\r\nLast-Modified: Tue, 01 Jan 2030 00:00:00 GMT\r\nContent-Range: bytes 3-5/10",
            "345",
        ),
        Answer::Announced(PARTIAL, 3, "23"),
    ];
    for answer in wrong {
        let server = serve(vec![answer, Answer::Whole(PARTIAL, "234")]).await;
        let found = server.store.get_ranges("k", &[2..5]).await.unwrap();
        assert_eq!(found, ["234"]);
        assert_eq!(server.served.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test]
async fn should_not_repeat_what_the_server_refuses() {
    let cases = [
        ("403 Forbidden", "<Code>AccessDenied</Code>"),
        ("401 Unauthorized", ""),
        ("400 Bad Request", "<Code>InvalidArgument</Code>"),
        ("404 Not Found", "<Code>NoSuchBucket</Code>"),
    ];
    for (head, text) in cases {
        let server = serve(vec![Answer::Whole(head, text)]).await;
        let error = server.store.get("k").await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Refused, "{head}");
        let error = server.store.create("k", body()).await.unwrap_err();
        assert_eq!(
            (error.kind, error.doubt),
            (StoreErrorKind::Refused, false),
            "{head}"
        );
        assert_eq!(server.served.load(Ordering::SeqCst), 2);
    }
    let server = serve(vec![Answer::Whole(
        "404 Not Found",
        "<Code>NoSuchKey</Code>",
    )])
    .await;
    assert_eq!(
        server.store.get("k").await.unwrap_err().kind,
        StoreErrorKind::NotFound
    );
}

#[tokio::test]
async fn should_send_a_conditional_write_once_and_doubt_every_silence() {
    for answer in [
        Answer::Nothing,
        Answer::Whole("500 Internal Server Error", ""),
        Answer::Whole("503 Slow Down", ""),
    ] {
        let server = serve(vec![answer]).await;
        let error = server.store.create("k", body()).await.unwrap_err();
        assert!(
            error.doubt && error.kind == StoreErrorKind::Unavailable,
            "{error}"
        );
        let error = server.store.swap("k", None, body()).await.unwrap_err();
        assert!(error.doubt, "{error}");
        assert_eq!(server.served.load(Ordering::SeqCst), 2);
    }
}

#[tokio::test]
async fn should_not_doubt_a_write_that_never_reached_a_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = open(&endpoint).await.create("k", body()).await.unwrap_err();
    assert!(
        !error.doubt && error.kind == StoreErrorKind::Unavailable,
        "{error:?}"
    );
}

#[tokio::test]
async fn should_report_failed_conditions_and_conflicts_as_taken_and_lost() {
    for head in ["412 Precondition Failed", "409 Conflict"] {
        let server = serve(vec![Answer::Whole(OK, "x"), Answer::Whole(head, "")]).await;
        let (_, tag) = server.store.get_tagged("k").await.unwrap().unwrap();
        assert_eq!(
            server.store.create("k", body()).await.unwrap(),
            Created::Exists,
            "{head}"
        );
        assert_eq!(
            server.store.swap("k", Some(&tag), body()).await.unwrap(),
            Swapped::Lost,
            "{head}"
        );
        assert_eq!(
            server.store.swap("k", None, body()).await.unwrap(),
            Swapped::Lost,
            "{head}"
        );
        assert_eq!(server.served.load(Ordering::SeqCst), 4);
    }
    // Some servers answer If-Match on a missing key with a 404.
    let server = serve(vec![
        Answer::Whole(OK, "x"),
        Answer::Whole("404 Not Found", "<Code>NoSuchKey</Code>"),
    ])
    .await;
    let (_, tag) = server.store.get_tagged("k").await.unwrap().unwrap();
    assert_eq!(
        server.store.swap("k", Some(&tag), body()).await.unwrap(),
        Swapped::Lost
    );
}

#[tokio::test]
async fn should_refuse_a_server_that_ignores_conditions() {
    let server = serve(vec![Answer::Whole(OK, "")]).await;
    let error = server.store.probe().await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Refused);
    assert!(
        error
            .message
            .contains("4 of 4 concurrent create-only writes won"),
        "{error}"
    );
}

/// Two parts: one of 8 MiB, one of a byte.
fn two_parts() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(TWO_PARTS as u64).unwrap();
    file
}

const TWO_PARTS: usize = (8 << 20) + 1;
const UPLOAD: Answer = Answer::Whole(
    "200 OK",
    "<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><UploadId>u</UploadId></InitiateMultipartUploadResult>",
);

#[tokio::test]
async fn should_settle_a_lost_end_of_an_upload_by_the_object_itself() {
    let gone = Answer::Whole("404 Not Found", "<Code>NoSuchUpload</Code>");
    let part = Answer::Whole(OK, "");
    let there = Answer::Announced(OK, TWO_PARTS, "");
    let answers = vec![UPLOAD, part.clone(), part, Answer::Nothing, gone, there];
    let server = serve(answers).await;
    server
        .store
        .put_file("k", two_parts().path())
        .await
        .unwrap();
    assert_eq!(server.served.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn should_name_the_type_of_every_body_so_that_no_server_guesses_and_packs_it() {
    let answers = vec![UPLOAD, Answer::Whole(OK, "")];
    let server = serve(answers).await;
    let parts = two_parts();
    // The scripted end of the upload says nothing; the parts went out before.
    let _ = server.store.put_file("k", parts.path()).await;
    server.store.put("small", body()).await.unwrap();
    let heads = server.heads.lock().unwrap();
    let bodies: Vec<&String> = heads
        .iter()
        .filter(|head| head.starts_with("put"))
        .collect();
    assert_eq!(bodies.len(), 3, "two parts and an object");
    for head in bodies {
        assert!(
            head.contains("content-type: application/octet-stream"),
            "{head}"
        );
    }
}

#[tokio::test]
async fn should_end_a_refused_upload_with_an_abort() {
    let server = serve(vec![UPLOAD, Answer::Whole("403 Forbidden", "")]).await;
    let error = server
        .store
        .put_file("k", two_parts().path())
        .await
        .unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Refused);
    // The start, one or both parts, the abort.
    assert!((3..=4).contains(&server.served.load(Ordering::SeqCst)));
}
