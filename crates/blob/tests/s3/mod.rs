//! As much of S3's interface as the adapter uses: objects in memory behind path-style URLs, lists
//! in short pages. Signatures are not checked, their presence is.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Objects in one page of a list.
const PAGE: usize = 4;

#[derive(Default)]
struct Bucket {
    objects: Mutex<BTreeMap<String, (Bytes, std::time::SystemTime)>>,
    pages: AtomicU64,
}

pub(crate) struct Server {
    url: String,
    bucket: Arc<Bucket>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        let bucket = Arc::new(Bucket::default());
        let app = Router::new().fallback(answer).with_state(bucket.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, bucket, task }
    }

    pub(crate) fn options(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT", self.url.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "nowhere"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("PATH", "/bin"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// Pages of lists that were read.
    pub(crate) fn pages(&self) -> u64 {
        self.bucket.pages.load(Relaxed)
    }
}

async fn answer(
    State(bucket): State<Arc<Bucket>>,
    Query(query): Query<HashMap<String, String>>,
    request: Request,
) -> Response {
    if !request.headers().contains_key(header::AUTHORIZATION) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 8 << 20).await.unwrap();
    let path = head.uri.path().trim_start_matches('/');
    let key = path.strip_prefix("bucket").unwrap().trim_start_matches('/');
    let mut objects = bucket.objects.lock().unwrap();
    match head.method {
        Method::GET if key.is_empty() => {
            bucket.pages.fetch_add(1, Relaxed);
            list(&objects, &query)
        }
        Method::PUT => {
            objects.insert(key.into(), (body, std::time::SystemTime::now()));
            ([(header::ETAG, "\"tag\"")], "").into_response()
        }
        Method::GET | Method::HEAD => match objects.get(key) {
            Some((content, at)) => object(&head.method, content, *at),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        Method::DELETE => {
            objects.remove(key);
            StatusCode::NO_CONTENT.into_response()
        }
        Method::POST if query.contains_key("delete") => {
            let text = String::from_utf8(body.to_vec()).unwrap();
            let mut xml = String::from("<DeleteResult>");
            for part in text.split("<Key>").skip(1) {
                let key = part.split("</Key>").next().unwrap();
                objects.remove(key);
                write!(xml, "<Deleted><Key>{key}</Key></Deleted>").unwrap();
            }
            xml.push_str("</DeleteResult>");
            xml.into_response()
        }
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

fn object(method: &Method, content: &Bytes, at: std::time::SystemTime) -> Response {
    let answer = Response::builder()
        .header(header::ETAG, "\"tag\"")
        .header(
            header::LAST_MODIFIED,
            date(at, "+%a, %d %b %Y %H:%M:%S GMT"),
        )
        .header(header::CONTENT_LENGTH, content.len());
    let body = match *method {
        Method::HEAD => Body::empty(),
        _ => Body::from(content.clone()),
    };
    answer.body(body).unwrap()
}

fn list(
    objects: &BTreeMap<String, (Bytes, std::time::SystemTime)>,
    query: &HashMap<String, String>,
) -> Response {
    let empty = String::new();
    let prefix = query.get("prefix").unwrap_or(&empty);
    let after = query.get("continuation-token").unwrap_or(&empty);
    let all = objects
        .iter()
        .filter(|(key, _)| key.starts_with(prefix.as_str()) && *key > after);
    let page: Vec<_> = all.clone().take(PAGE).collect();
    let more = all.count() > PAGE;
    let mut xml = format!("<ListBucketResult><IsTruncated>{more}</IsTruncated>");
    for (key, (content, at)) in &page {
        let at = date(*at, "+%Y-%m-%dT%H:%M:%S.000Z");
        let size = content.len();
        write!(
            xml,
            "<Contents><Key>{key}</Key><LastModified>{at}</LastModified><ETag>\"tag\"</ETag>\
             <Size>{size}</Size></Contents>"
        )
        .unwrap();
    }
    if more && let Some((last, _)) = page.last() {
        write!(xml, "<NextContinuationToken>{last}</NextContinuationToken>").unwrap();
    }
    xml.push_str("</ListBucketResult>");
    xml.into_response()
}

/// The `date` program knows calendars.
fn date(at: std::time::SystemTime, format: &str) -> String {
    let seconds = at.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let output = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{seconds}"), format])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
