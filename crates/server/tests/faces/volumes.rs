//! Volumes and their content.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use crate::fixture::{Answer, Server};

struct Volume<'a> {
    server: &'a Server,
    id: String,
    token: String,
}

impl<'a> Volume<'a> {
    async fn make(server: &'a Server, name: &str) -> Self {
        let body = json!({"name": name}).to_string();
        let made = server.call("POST", "/volumes", &body).await;
        assert_eq!(made.status, 201, "{made:?}");
        let made = made.json();
        assert_eq!(made["name"], name);
        let text = |field: &str| made[field].as_str().expect("text").to_owned();
        Self {
            server,
            id: text("volumeID"),
            token: text("token"),
        }
    }

    async fn call(&self, method: &str, rest: &str, body: impl Into<Body>) -> Answer {
        self.with_token(&self.token, method, rest, body).await
    }

    async fn with_token(
        &self,
        token: &str,
        method: &str,
        rest: &str,
        body: impl Into<Body>,
    ) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(format!("/volumecontent/{}/{rest}", self.id))
            .header("host", "api.frog.test")
            .header("authorization", format!("Bearer {token}"))
            .body(body.into())
            .expect("a request");
        self.server.send_request(request).await
    }
}

#[tokio::test]
async fn volumes_are_made_listed_and_removed() {
    let server = Server::start().await;
    let volume = Volume::make(&server, "Data_1").await;
    let (id, token) = (&volume.id, &volume.token);
    let path = format!("/volumes/{id}");
    let found = server.call("GET", &path, "").await;
    assert_eq!(
        found.json(),
        json!({"volumeID": id, "name": "Data_1", "token": token})
    );
    let listed = server.call("GET", "/volumes", "").await;
    assert_eq!(listed.json(), json!([{"volumeID": id, "name": "Data_1"}]));
    let again = server
        .call("POST", "/volumes", r#"{"name":"Data_1"}"#)
        .await;
    assert_eq!(again.status, 409, "{again:?}");
    for bad in [
        r#"{"name":""}"#,
        r#"{"name":"a b"}"#,
        r#"{"name":"../x"}"#,
        "{}",
    ] {
        let refused = server.call("POST", "/volumes", bad).await;
        assert_eq!(refused.status, 400, "{bad}: {refused:?}");
    }
    for method in ["GET", "DELETE"] {
        let hidden = server.send(method, &path, Some(&server.other), "").await;
        assert_eq!(hidden.status, 404, "{method}: {hidden:?}");
    }
    let others = server.send("GET", "/volumes", Some(&server.other), "");
    assert_eq!(others.await.json(), json!([]));

    let put = volume.call("PUT", "file?path=/f", "x").await;
    assert_eq!(put.status, 201, "{put:?}");
    assert_eq!(server.call("DELETE", &path, "").await.status, 204);
    assert_eq!(server.call("DELETE", &path, "").await.status, 404);
    assert_eq!(server.call("GET", &path, "").await.status, 404);
    let gone = volume.call("GET", "file?path=/f", "").await;
    assert_eq!(gone.status, 404, "{gone:?}");
}

#[tokio::test]
async fn content_goes_in_and_out() {
    let server = Server::start().await;
    let volume = Volume::make(&server, "data").await;
    let big: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let made = volume.call("POST", "dir?path=/a/b&mode=448", "").await;
    assert_eq!(made.status, 404, "{made:?}");
    let path = "dir?path=/a/b&mode=448&force=true";
    let made = volume.call("POST", path, "").await;
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    assert_eq!(
        (&made["type"], &made["mode"]),
        (&json!("directory"), &json!(448))
    );
    let put = volume
        .call("PUT", "file?path=a/b/big&uid=1000&gid=1000", big.clone())
        .await;
    assert_eq!(put.status, 201, "{put:?}");
    let entry = put.json();
    assert_eq!(entry["path"], "/a/b/big");
    assert_eq!(
        (&entry["size"], &entry["uid"]),
        (&json!(3_000_000), &json!(1000))
    );
    for field in ["atime", "mtime", "ctime"] {
        assert!(entry[field].is_string(), "{field}: {entry}");
    }
    let read = volume.call("GET", "file?path=/a/b/big", "").await;
    assert_eq!(read.headers["content-length"], "3000000");
    assert!(read.body == big);
    let stat = volume.call("GET", "path?path=/a/b/big", "").await;
    assert_eq!(stat.json()["size"], 3_000_000);
    let paths = |list: &Value| -> Vec<Value> {
        let list = list.as_array().expect("a list");
        list.iter().map(|entry| entry["path"].clone()).collect()
    };
    let list = volume.call("GET", "dir?path=/", "").await.json();
    assert_eq!(paths(&list), ["/a"]);
    let list = volume.call("GET", "dir?path=/&depth=3", "").await.json();
    assert_eq!(paths(&list), ["/a", "/a/b", "/a/b/big"]);
    let set = volume.call("PATCH", "path?path=/a/b/big", r#"{"mode":256}"#);
    assert_eq!(set.await.json()["mode"], 256);
    let kept = volume
        .call("PUT", "file?path=/a/b/big&force=false", "x")
        .await;
    assert_eq!(kept.status, 409, "{kept:?}");
    let put = volume.call("PUT", "file?path=/a/b/big", "").await;
    assert_eq!(put.json()["size"], 0);
    let empty = volume.call("GET", "file?path=/a/b/big", "").await;
    assert_eq!((empty.status.as_u16(), empty.body.len()), (200, 0));
    let removed = volume.call("DELETE", "path?path=/a", "").await;
    assert_eq!(removed.status, 204, "{removed:?}");
    let removed = volume.call("DELETE", "path?path=/a", "").await;
    assert_eq!(removed.status, 404, "{removed:?}");
}

#[tokio::test]
async fn only_its_own_token_opens_a_volume() {
    let server = Server::start().await;
    let (mine, other) = (
        Volume::make(&server, "mine").await,
        Volume::make(&server, "other").await,
    );
    mine.call("PUT", "file?path=f", "x").await;
    for token in ["", "x", &other.token, &server.admin] {
        for (method, rest) in [("GET", "file?path=f"), ("DELETE", "path?path=f")] {
            let refused = mine.with_token(token, method, rest, "").await;
            assert_eq!(refused.status, 401, "{token} {method}: {refused:?}");
        }
    }
    for (method, rest, status) in [
        ("GET", "path", 400),
        ("GET", "path?path=../other/f", 400),
        ("GET", "path?path=%00", 400),
        ("GET", "path?path=none", 404),
        ("GET", "file?path=/", 400),
        ("GET", "dir?path=f", 400),
        ("GET", "dir?path=/&depth=x", 400),
        ("GET", "dir?path=/&depth=1000", 400),
        ("PUT", "file?path=none/f", 404),
        ("PUT", "file?path=g&mode=99999", 400),
        ("PUT", "file?path=g&uid=-1", 400),
        ("DELETE", "path?path=/", 400),
    ] {
        let refused = mine.call(method, rest, "").await;
        assert_eq!(refused.status, status, "{method} {rest}: {refused:?}");
        assert_eq!(refused.json()["code"], status, "{method} {rest}");
    }
    for bad in ["[", "7", r#"{"mode":"x"}"#, r#"{"uid":-1}"#] {
        let refused = mine.call("PATCH", "path?path=f", bad).await;
        assert_eq!(refused.status, 400, "{bad}: {refused:?}");
    }
    assert_eq!(mine.call("GET", "file?path=f", "").await.body, b"x");
    let list = mine.call("GET", "dir?path=/", "").await.json();
    assert_eq!(list.as_array().expect("a list").len(), 1);
}

/// A sandbox of E2B's face with a volume: what was answered.
async fn with_volume(server: &Server, key: &str, name: &str, path: &str) -> Answer {
    let body = json!({"templateID": "base", "volumeMounts": [{"name": name, "path": path}]});
    server
        .send("POST", "/v2/sandboxes", Some(key), &body.to_string())
        .await
}

#[tokio::test]
async fn sandboxes_have_volumes_and_keep_them_from_being_removed() {
    let server = Server::start().await;
    let volume = Volume::make(&server, "data").await;
    let made = with_volume(&server, &server.admin, "data", "/mnt//data/./x/").await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.json()["sandboxID"].as_str().expect("an id").to_owned();
    let mounts = json!([{"name": "data", "path": "/mnt/data/x"}]);
    let listed = server.call("GET", "/v2/sandboxes", "").await.json();
    assert_eq!(listed[0]["volumeMounts"], mounts);
    let path = format!("/sandboxes/{id}");
    let detail = server.call("GET", &path, "").await.json();
    assert_eq!(detail["volumeMounts"], mounts);
    let native = server.call("GET", &format!("/api/v1{path}"), "").await;
    assert_eq!(native.json()["volumes"], mounts);

    let pause = server.call("POST", &format!("{path}/pause"), "{}").await;
    assert_eq!(pause.status, 204, "{pause:?}");
    let of_volume = format!("/volumes/{}", volume.id);
    let refused = server.call("DELETE", &of_volume, "").await;
    assert_eq!(refused.status, 409, "{refused:?}");
    let said = refused.json()["message"].to_string();
    assert!(said.contains(&id) && said.contains("'data'"), "{said}");
    let put = volume.call("PUT", "file?path=/f", "x").await;
    assert_eq!(put.status, 201, "it is still there: {put:?}");
    assert_eq!(server.call("DELETE", &path, "").await.status, 204);
    assert_eq!(server.call("DELETE", &of_volume, "").await.status, 204);
    let late = with_volume(&server, &server.admin, "data", "/data").await;
    assert_eq!(late.status, 400, "{late:?}");
}

#[tokio::test]
async fn volumes_of_others_are_not_mounted() {
    let server = Server::start().await;
    let _volume = Volume::make(&server, "data").await;
    let other = with_volume(&server, &server.other, "data", "/data").await;
    assert_eq!(other.status, 400, "{other:?}");
    let unknown = with_volume(&server, &server.admin, "nothing", "/data").await;
    assert_eq!(unknown.status, 400, "{unknown:?}");
    let listed = server.call("GET", "/v2/sandboxes", "").await.json();
    assert_eq!(listed, json!([]), "nothing half-made");
}

#[tokio::test]
async fn the_native_face_has_pages_of_volumes() {
    let server = Server::start().await;
    let mut ids = Vec::new();
    for name in ["b", "c", "a"] {
        let body = json!({"name": name}).to_string();
        let made = server.call("POST", "/api/v1/volumes", &body).await;
        assert_eq!(made.status, 201, "{made:?}");
        let made = made.json();
        assert!(made["token"].is_string(), "{made}");
        ids.push(made["id"].as_str().expect("an id").to_owned());
    }
    let (mut names, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/v1/volumes?limit=1{cursor}");
        let page = server.call("GET", &path, "").await.json();
        let items = page["items"].as_array().expect("items");
        assert!(items[0].get("token").is_none(), "{page}");
        names.extend(items.iter().map(|one| one["name"].to_string()));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(names, ["\"a\"", "\"b\"", "\"c\""]);
    for reference in ["b", &ids[0]] {
        let path = format!("/api/v1/volumes/{reference}");
        let found = server.call("GET", &path, "").await;
        assert_eq!(found.json()["id"], *ids[0], "{found:?}");
        let hidden = server.send("GET", &path, Some(&server.other), "").await;
        assert_eq!(hidden.status, 404, "{hidden:?}");
    }
    for query in ["limit=0", "limit=1000", "cursor=00"] {
        let path = format!("/api/v1/volumes?{query}");
        let bad = server.call("GET", &path, "").await;
        assert_eq!(bad.status, 400, "{query}: {bad:?}");
    }
    let gone = server.call("DELETE", "/api/v1/volumes/b", "").await;
    assert_eq!(gone.status, 204, "{gone:?}");
    let gone = server.call("DELETE", "/api/v1/volumes/b", "").await;
    assert_eq!(gone.status, 404, "{gone:?}");
    let body = json!({"volumes": [{"name": "a", "path": "/a", "mode": "ro"}]}).to_string();
    let unknown = server.call("POST", "/api/v1/sandboxes", &body).await;
    assert_eq!(unknown.status, 400, "{unknown:?}");
}
