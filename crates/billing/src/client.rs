//! Posting to addresses that users name. Only public addresses are reached unless the server's
//! operator says otherwise; redirects and proxies are never followed, and answers are not read.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Url};
use woodfrog_core::webhook::{URL_CHARS_MAX, is_public};
use woodfrog_types::Fault;

/// How long making a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a whole try may take.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// Which addresses webhooks may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Only those that everybody could reach.
    Public,
    /// Also this machine and private networks.
    Anywhere,
}

/// What was answered, or why nothing was.
pub(crate) type Answer = Result<u16, String>;

/// Posts. A cheap clone.
#[derive(Clone)]
pub(crate) struct Poster {
    http: Client,
    reach: Reach,
}

impl Poster {
    pub(crate) fn new(reach: Reach) -> Self {
        // Fails only if there is one already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            Client::builder()
                .connect_timeout(CONNECT_MAX)
                .timeout(ANSWER_MAX)
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .user_agent(concat!("woodfrog/", env!("CARGO_PKG_VERSION")))
                .dns_resolver(Arc::new(Checked(reach)))
        };
        let http = builder().build().or_else(|error| {
            // A machine without authorities: `https` fails there, `http` need not.
            tracing::warn!(%error, "webhooks over https cannot be told");
            builder().tls_certs_only([]).build()
        });
        Self {
            http: http.expect("a client without TLS can always be made"),
            reach,
        }
    }

    /// Posts JSON; the status that was answered.
    pub(crate) async fn post(
        &self,
        url: &str,
        headers: [(&'static str, String); 3],
        body: String,
    ) -> Answer {
        let url = check_url(url, self.reach).map_err(|fault| fault.message)?;
        let mut request = self
            .http
            .post(url)
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = request.body(body).send().await;
        answer
            .map(|answer| answer.status().as_u16())
            .map_err(|error| root(&error.without_url()))
    }
}

/// The last cause: what happened, without what was being done.
fn root(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// Refuses what is not `http` or `https`, has credentials, or is an address out of reach. Names
/// are looked at when they are resolved.
pub(crate) fn check_url(text: &str, reach: Reach) -> Result<Url, Fault> {
    let refuse = |why: String| Fault::invalid("url", why);
    if text.chars().count() > URL_CHARS_MAX {
        return Err(refuse(format!(
            "url has at most {URL_CHARS_MAX} characters"
        )));
    }
    let url = Url::parse(text).map_err(|error| refuse(format!("url is not a URL: {error}")))?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err(refuse("url must be http or https".to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse(
            "url must not have credentials: deliveries are signed".to_owned(),
        ));
    }
    let host = url.host_str().unwrap_or_default();
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    match literal.parse::<IpAddr>() {
        Ok(address) if !allowed(address, reach) => Err(refuse(format!(
            "{address} is private: this server tells public addresses only \
             (`webhooks.allow_private`)"
        ))),
        _ if host.is_empty() => Err(refuse("url has no host".to_owned())),
        Ok(_) | Err(_) => Ok(url),
    }
}

fn allowed(address: IpAddr, reach: Reach) -> bool {
    reach == Reach::Anywhere || is_public(address)
}

/// Resolves names to allowed addresses. What is checked is what is connected to: a name cannot
/// mean one thing to the check and another to the connection.
struct Checked(Reach);

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found: Vec<SocketAddr> = found
                .filter(|address| allowed(address.ip(), reach))
                .collect();
            if found.is_empty() {
                let text = "the name has no public address";
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, text).into());
            }
            let found: Addrs = Box::new(found.into_iter());
            Ok(found)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_checked() {
        for bad in [
            "",
            "example.com",
            "ftp://example.com/",
            "file:///etc/passwd",
            "http://u:p@example.com",
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://[::1]:80/",
            "http://[::ffff:10.0.0.1]/",
            "http://169.254.169.254/latest",
        ] {
            assert!(check_url(bad, Reach::Public).is_err(), "{bad}");
        }
        for good in ["https://example.com/hook?a=1", "http://8.8.8.8:8080/"] {
            assert!(check_url(good, Reach::Public).is_ok(), "{good}");
        }
        assert!(check_url("http://127.0.0.1:5/", Reach::Anywhere).is_ok());
    }

    #[tokio::test]
    async fn a_name_that_means_this_machine_is_not_reached() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("bound");
        let port = listener.local_addr().expect("an address").port();
        let headers = || ["a", "b", "c"].map(|name| (name, String::new()));
        let url = format!("http://localhost:{port}/");
        let answer = Poster::new(Reach::Public)
            .post(&url, headers(), String::new())
            .await;
        assert_eq!(answer, Err("the name has no public address".to_owned()));
    }
}
