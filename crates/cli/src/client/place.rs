//! Finding the server and the key to it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use reqwest::Url;

use super::ClientError;
use crate::args::Target;

/// Where a server listens unless it was told otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:7070";

/// A server and the key to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    pub url: Url,
    pub key: Option<String>,
    /// Certificates of the private authority of a server on this machine.
    pub authority: Option<PathBuf>,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place")
            .field("url", &self.url.as_str())
            .finish_non_exhaustive()
    }
}

impl Place {
    /// The URL that was given, else that of the server that keeps its data in the data directory,
    /// else the default one. The admin key in the data directory is used for a server on this
    /// machine only: another server must never see it.
    pub(super) fn find(target: &Target) -> Result<Self, ClientError> {
        let endpoint = read(&target.data_dir.join("endpoint"));
        let text = match (&target.url, &endpoint) {
            (Some(url), _) => url.as_str(),
            (None, Some(url)) => url.as_str(),
            (None, None) => DEFAULT_URL,
        };
        let url = parse(text)?;
        let here = is_loopback(&url)
            || endpoint.is_some_and(|known| parse(&known).ok() == Some(url.clone()));
        let key = match &target.api_key {
            Some(key) => Some(key.trim().to_owned()).filter(|key| !key.is_empty()),
            None if here => read(&target.data_dir.join("admin.key")),
            None => None,
        };
        let authority =
            Some(target.data_dir.join("tls/ca.pem")).filter(|path| here && path.exists());
        Ok(Self {
            url,
            key,
            authority,
        })
    }
}

/// One line of a file that may not be there or not be ours to read.
fn read(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn parse(text: &str) -> Result<Url, ClientError> {
    let wrong = |why: &str| ClientError::Setup(format!("`{text}` is not a server's URL: {why}"));
    let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("it must begin with http:// or https://"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it must not have a query or a fragment"));
    }
    Ok(url)
}

/// Whether the URL leads to this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost"
        || bare
            .parse()
            .is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(dir: &Path, url: Option<&str>, key: Option<&str>) -> Target {
        Target {
            url: url.map(str::to_owned),
            api_key: key.map(str::to_owned),
            workspace: None,
            data_dir: dir.to_owned(),
            ca: None,
            json: false,
        }
    }

    #[test]
    fn a_given_url_beats_the_endpoint_beats_the_default() {
        let dir = tempfile::tempdir().expect("tempdir");
        let find = |url| Place::find(&target(dir.path(), url, None)).expect("found");
        assert_eq!(find(None).url.as_str(), "http://127.0.0.1:7070/");
        std::fs::write(dir.path().join("endpoint"), "http://127.0.0.1:4321\n").expect("write");
        assert_eq!(find(None).url.as_str(), "http://127.0.0.1:4321/");
        assert_eq!(find(Some("http://[::1]:1")).url.as_str(), "http://[::1]:1/");
    }

    #[test]
    fn the_admin_key_never_leaves_the_machine() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join("admin.key"), "wf_secret\n").expect("write");
        let key = |url, key| {
            let place = Place::find(&target(dir.path(), Some(url), key)).expect("found");
            place.key
        };
        assert_eq!(
            key("http://127.0.0.1:7070", None).as_deref(),
            Some("wf_secret")
        );
        assert_eq!(
            key("http://localhost:1", None).as_deref(),
            Some("wf_secret")
        );
        assert_eq!(key("https://frogs.example", None), None);
        assert_eq!(key("https://127.frogs.example", None), None);
        assert_eq!(
            key("http://127.0.0.1:7070", Some("wf_given")).as_deref(),
            Some("wf_given")
        );
        std::fs::write(dir.path().join("endpoint"), "https://frogs.example\n").expect("write");
        assert_eq!(
            key("https://frogs.example/", None).as_deref(),
            Some("wf_secret")
        );
    }

    #[test]
    fn what_is_not_a_url_is_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        for url in ["127.0.0.1:7070", "ftp://x", "http://x?y", ""] {
            let found = Place::find(&target(dir.path(), Some(url), None));
            assert!(found.is_err(), "{url}");
        }
    }
}
