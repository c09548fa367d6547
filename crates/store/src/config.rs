//! Where a lake lies: one serde struct, read by the services and handed down.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

use crate::StoreError;
use crate::key;

/// Location and credentials of a store. Rust reads no environment: what is not
/// here is not known, except that S3 without keys asks the machine's own role.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StoreConfig {
    /// A path, `file:///path` or `s3://bucket/prefix`.
    pub url: String,
    /// URL of an S3-compatible server; absent for AWS.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Defaults to `us-east-1`, which compatible servers ignore.
    #[serde(default)]
    pub region: Option<String>,
    /// `endpoint/bucket/key` (the default, and what compatible servers want) instead of `bucket.endpoint/key`.
    #[serde(default = "path_style_default")]
    pub path_style: bool,
    /// Access key id.
    #[serde(default)]
    pub access_key: Option<String>,
    /// Secret access key.
    #[serde(default)]
    pub secret_key: Option<String>,
    /// Session token of temporary credentials.
    #[serde(default)]
    pub session_token: Option<String>,
}

fn path_style_default() -> bool {
    true
}

impl StoreConfig {
    /// A store at `url` without credentials.
    pub fn at(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            endpoint: None,
            region: None,
            path_style: true,
            access_key: None,
            secret_key: None,
            session_token: None,
        }
    }
}

/// Secrets never reach a log.
impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreConfig")
            .field("url", &self.url)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("path_style", &self.path_style)
            .field("access_key", &self.access_key)
            .field("secret_key", &self.secret_key.as_ref().map(|_| "…"))
            .field("session_token", &self.session_token.as_ref().map(|_| "…"))
            .finish()
    }
}

/// A parsed URL.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Location {
    Directory(PathBuf),
    S3 { bucket: String, prefix: String },
}

pub(crate) fn parse_url(url: &str) -> Result<Location, StoreError> {
    let refuse = |why: &str| Err(StoreError::refused(url, format!("store url: {why}")));
    if let Some(rest) = url.strip_prefix("s3://") {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        let bucket_ok =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if bucket.is_empty() || !bucket.bytes().all(bucket_ok) {
            return refuse("s3://<bucket>/<prefix> needs a bucket name of a-z 0-9 . - _");
        }
        if !prefix.is_empty() {
            key::check(prefix)?;
        }
        return Ok(Location::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        });
    }
    let path = match url.strip_prefix("file://") {
        Some(path) if path.starts_with('/') => path,
        Some(_) => return refuse("file:// takes an absolute path and no host"),
        None if url.contains("://") => return refuse("scheme is neither file nor s3"),
        None => url,
    };
    if path.is_empty() {
        return refuse("empty path");
    }
    Ok(Location::Directory(PathBuf::from(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn should_parse_paths_and_urls() {
        let s3 = |bucket: &str, prefix: &str| Location::S3 {
            bucket: bucket.into(),
            prefix: prefix.into(),
        };
        assert_eq!(
            parse_url("./lake").unwrap(),
            Location::Directory("./lake".into())
        );
        assert_eq!(
            parse_url("file:///var/lake").unwrap(),
            Location::Directory("/var/lake".into())
        );
        assert_eq!(parse_url("s3://lake").unwrap(), s3("lake", ""));
        assert_eq!(
            parse_url("s3://lake/prod/a/").unwrap(),
            s3("lake", "prod/a")
        );
    }

    #[test]
    fn should_refuse_urls_that_name_no_place() {
        for url in [
            "",
            "gs://a/b",
            "file://host/x",
            "s3://",
            "s3:///x",
            "s3://Bucket",
            "s3://b/../c",
            "file://",
        ] {
            assert!(parse_url(url).is_err(), "{url:?}");
        }
    }

    #[test]
    fn should_never_print_the_secret() {
        let config = StoreConfig {
            secret_key: Some("hunter2".into()),
            ..StoreConfig::at("s3://b")
        };
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
