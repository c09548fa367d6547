//! S3 and compatible servers, through `object_store` with its own retries off: ours
//! sit above (`patience`), so that every request is counted and conditional ones are
//! sent exactly once.
//!
//! What its answers mean here:
//! - create (`If-None-Match: *`): 412 **and 409** come as "already exists"; after a
//!   lost reply that a proxy repeated, it may be our own body. `Created::Exists` says
//!   no more than that.
//! - swap (`If-Match`): 412, 404 and 409 come as [`Swapped::Lost`].
//! - any failure of a conditional write other than a plain refusal or a connection
//!   that never opened leaves its outcome in doubt.
//!
//! Files beyond one part go up as a multipart upload, parts in parallel, each retried
//! by itself; a failed upload is aborted. Left out on purpose: bucket control
//! (the services' part) and credentials from the environment (Rust reads none).

mod answers;

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    ClientOptions, Error, GetOptions, GetRange, HeaderMap, HeaderValue, ObjectStore,
    ObjectStoreExt, PutMode, PutOptions, RetryConfig, UpdateVersion,
};

use self::answers::{explain, in_doubt};
use crate::StoreError;
use crate::config::StoreConfig;
use crate::faults::Op;
use crate::patience::{Patience, retry};
use crate::store::{Backend, Created, Listed, Swapped, Tag};
use crate::usage::Counters;

/// One request, body included. An 8 MiB part passes at 1.2 Mbit/s; contended
/// create-only writes of SeaweedFS take 5 s at p99.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// A server in the same region answers in milliseconds; ten lost SYNs take 5 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// S3 takes parts of 5 MiB and up.
const PART_BYTES_MIN: u64 = 8 << 20;
/// S3 takes 10,000 parts; beyond 78 GiB the parts grow instead.
const PARTS_MAX: u64 = 10_000;
/// 4 parts of 8 MiB in flight: 32 MiB of memory an upload.
const PARTS_IN_FLIGHT_MAX: usize = 4;
/// As in the directory backend: 2 M entries of ~100 bytes take 200 MB.
const LISTED_MAX: usize = 2_000_000;

/// On every request, since parts of an upload take no attributes. SeaweedFS compresses chunks
/// of no type that begin compressibly, and then unpacks whole chunks for each range read:
/// an id cost 25 to 110 ms instead of one.
const CONTENT_TYPE: &str = "application/octet-stream";

pub(crate) struct S3 {
    client: AmazonS3,
    bucket: String,
    counters: Arc<Counters>,
    patience: Patience,
}

impl S3 {
    pub(crate) fn open(
        config: &StoreConfig,
        bucket: &str,
        counters: Arc<Counters>,
        patience: Patience,
    ) -> Result<Self, StoreError> {
        let once = RetryConfig {
            max_retries: 0,
            retry_timeout: REQUEST_TIMEOUT,
            ..RetryConfig::default()
        };
        let http = config
            .endpoint
            .as_deref()
            .is_some_and(|endpoint| endpoint.starts_with("http://"));
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(CONTENT_TYPE));
        let options = ClientOptions::new()
            .with_default_headers(headers)
            .with_timeout(REQUEST_TIMEOUT)
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_allow_http(http);
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(config.region.as_deref().unwrap_or("us-east-1"))
            .with_virtual_hosted_style_request(!config.path_style)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_client_options(options)
            .with_retry(once);
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(key) = &config.access_key {
            builder = builder.with_access_key_id(key);
        }
        if let Some(secret) = &config.secret_key {
            builder = builder.with_secret_access_key(secret);
        }
        if let Some(token) = &config.session_token {
            builder = builder.with_token(token);
        }
        let refused =
            |e: Error| StoreError::refused(&config.url, format!("s3 settings: {e}")).with_source(e);
        Ok(Self {
            client: builder.build().map_err(refused)?,
            bucket: bucket.to_owned(),
            counters,
            patience,
        })
    }

    async fn get_range(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<(Bytes, Tag), StoreError> {
        let options = GetOptions {
            range: range.map(GetRange::Bounded),
            ..GetOptions::default()
        };
        let failed = |e| explain(key, e);
        let answer = self
            .client
            .get_opts(&path(key)?, options)
            .await
            .map_err(failed)?;
        let tag = Tag(answer.meta.e_tag.clone().unwrap_or_default());
        let wanted = answer.range.end - answer.range.start;
        let body = answer.bytes().await.map_err(failed)?;
        if body.len() as u64 != wanted {
            let message = format!("body of {} bytes where {wanted} were announced", body.len());
            return Err(StoreError::corrupt(key, message).with_retriable(true));
        }
        Ok((body, tag))
    }

    async fn put_with(&self, key: &str, body: Bytes, mode: PutMode) -> Result<Tag, PutFailure> {
        let at = path(key).map_err(PutFailure::Error)?;
        let options = PutOptions {
            mode,
            ..PutOptions::default()
        };
        match self.client.put_opts(&at, body.into(), options).await {
            Ok(put) => Ok(Tag(put.e_tag.unwrap_or_default())),
            Err(
                Error::AlreadyExists { .. }
                | Error::Precondition { .. }
                | Error::NotModified { .. },
            ) => Err(PutFailure::Condition),
            Err(error) => Err(PutFailure::Error(explain(key, error))),
        }
    }

    async fn put_parts(&self, key: &str, file: Arc<File>, length: u64) -> Result<(), StoreError> {
        let at = path(key)?;
        let id = self
            .client
            .create_multipart(&at)
            .await
            .map_err(|e| explain(key, e))?;
        let part_bytes = PART_BYTES_MIN.max(length.div_ceil(PARTS_MAX));
        let parts = stream::iter(0..length.div_ceil(part_bytes)).map(|index| {
            let range = index * part_bytes..length.min((index + 1) * part_bytes);
            self.put_part(key, &at, &id, index as usize, Arc::clone(&file), range)
        });
        let parts: Result<Vec<PartId>, StoreError> =
            parts.buffered(PARTS_IN_FLIGHT_MAX).try_collect().await;
        let done = match parts {
            Ok(parts) => self.complete(key, &at, &id, parts, length).await,
            Err(error) => Err(error),
        };
        if done.is_err() {
            // Best effort: the bucket's lifecycle rule removes what an abort could not.
            let _ = self.client.abort_multipart(&at, &id).await;
        }
        // Parts were already retried; starting the whole file over would multiply that.
        done.map_err(|error| error.with_retriable(false))
    }

    async fn put_part(
        &self,
        key: &str,
        at: &Path,
        id: &String,
        index: usize,
        file: Arc<File>,
        range: Range<u64>,
    ) -> Result<PartId, StoreError> {
        let body = read_part(key, file, range).await?;
        let put = retry(&self.patience, &self.counters, || async {
            self.counters.request(Op::Put);
            let put = self
                .client
                .put_part(at, id, index, body.clone().into())
                .await;
            put.map_err(|e| explain(key, e))
        });
        put.await
    }

    /// Ends an upload. After a lost reply a second try finds no such upload, so the
    /// object itself settles it: write-once names make its length proof enough.
    async fn complete(
        &self,
        key: &str,
        at: &Path,
        id: &String,
        parts: Vec<PartId>,
        length: u64,
    ) -> Result<(), StoreError> {
        let complete = retry(&self.patience, &self.counters, || async {
            self.counters.request(Op::Put);
            let done = self.client.complete_multipart(at, id, parts.clone()).await;
            done.map_err(|e| explain(key, e))
        });
        let Err(error) = complete.await else {
            return Ok(());
        };
        self.counters.request(Op::Size);
        match self.size(key).await {
            Ok(found) if found == length => Ok(()),
            _ => Err(error),
        }
    }
}

enum PutFailure {
    Condition,
    Error(StoreError),
}

#[async_trait]
impl Backend for S3 {
    fn describe(&self) -> String {
        format!("s3://{}", self.bucket)
    }

    fn ranges_per_call(&self) -> usize {
        1
    }

    fn local_path(&self, _key: &str) -> Option<PathBuf> {
        None
    }

    async fn get(&self, key: &str) -> Result<(Bytes, Tag), StoreError> {
        self.get_range(key, None).await
    }

    async fn ranges(&self, key: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StoreError> {
        let mut bodies = Vec::with_capacity(ranges.len());
        for range in ranges {
            bodies.push(self.get_range(key, Some(range.clone())).await?.0);
        }
        Ok(bodies)
    }

    async fn size(&self, key: &str) -> Result<u64, StoreError> {
        let found = self
            .client
            .head(&path(key)?)
            .await
            .map_err(|e| explain(key, e))?;
        Ok(found.size)
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<Created, StoreError> {
        match self.put_with(key, body, PutMode::Create).await {
            Ok(_) => Ok(Created::Created),
            Err(PutFailure::Condition) => Ok(Created::Exists),
            Err(PutFailure::Error(error)) => Err(in_doubt(error)),
        }
    }

    async fn swap(
        &self,
        key: &str,
        expected: Option<&Tag>,
        body: Bytes,
    ) -> Result<Swapped, StoreError> {
        let mode = match expected {
            None => PutMode::Create,
            Some(tag) if tag.0.is_empty() => {
                return Err(StoreError::refused(
                    key,
                    "the store sends no ETag, so nothing can be compared",
                ));
            }
            Some(tag) => PutMode::Update(UpdateVersion {
                e_tag: Some(tag.0.clone()),
                version: None,
            }),
        };
        match self.put_with(key, body, mode).await {
            Ok(tag) => Ok(Swapped::Swapped(tag)),
            Err(PutFailure::Condition) => Ok(Swapped::Lost),
            Err(PutFailure::Error(error)) => Err(in_doubt(error)),
        }
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        match self.put_with(key, body, PutMode::Overwrite).await {
            Ok(_) => Ok(()),
            // A 409 without a condition: another request on this key is in flight.
            Err(PutFailure::Condition) => Err(StoreError::unavailable(
                key,
                "conflicting request in flight",
            )),
            Err(PutFailure::Error(error)) => Err(error),
        }
    }

    async fn put_file(&self, key: &str, source: &FilePath) -> Result<(), StoreError> {
        let (file, length) = open_file(key, source).await?;
        if length <= PART_BYTES_MIN {
            let body = read_part(key, file, 0..length).await?;
            return self.put(key, body).await;
        }
        self.put_parts(key, file, length).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.client
            .delete(&path(key)?)
            .await
            .map_err(|e| explain(key, e))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let below = if prefix.is_empty() {
            None
        } else {
            Some(path(prefix)?)
        };
        let mut found = self.client.list(below.as_ref());
        let mut listed = Vec::new();
        while let Some(entry) = found.try_next().await.map_err(|e| explain(prefix, e))? {
            if listed.len() >= LISTED_MAX {
                return Err(StoreError::refused(
                    prefix,
                    format!("more than {LISTED_MAX} objects below this prefix"),
                ));
            }
            listed.push(Listed {
                key: entry.location.to_string(),
                size: entry.size,
            });
        }
        Ok(listed)
    }
}

async fn open_file(key: &str, source: &FilePath) -> Result<(Arc<File>, u64), StoreError> {
    let source = source.to_owned();
    let opened = blocking(key, move || {
        let file = File::open(source)?;
        let length = file.metadata()?.len();
        Ok((Arc::new(file), length))
    });
    opened.await
}

async fn read_part(key: &str, file: Arc<File>, range: Range<u64>) -> Result<Bytes, StoreError> {
    let read = blocking(key, move || {
        let mut body = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut body, range.start)?;
        Ok(Bytes::from(body))
    });
    read.await
}

async fn blocking<T: Send + 'static>(
    key: &str,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    let joined = tokio::task::spawn_blocking(work).await;
    let outcome = joined.map_err(|e| StoreError::refused(key, format!("file task ended: {e}")))?;
    outcome.map_err(|e| {
        StoreError::refused(key, format!("read the finished file: {e}")).with_source(e)
    })
}

fn path(key: &str) -> Result<Path, StoreError> {
    Path::parse(key).map_err(|e| StoreError::refused(key, format!("invalid key: {e}")))
}
