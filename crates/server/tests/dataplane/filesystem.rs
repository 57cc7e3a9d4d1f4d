//! Directories and watchers over Connect.

use std::time::Instant;

use serde_json::{Value, json};

use crate::common::{PATIENCE, World};

async fn fs(world: &World, procedure: &str, message: Value) -> (u16, Value) {
    let procedure = format!("filesystem.Filesystem/{procedure}");
    let answer = world.call(&procedure, &message.to_string()).await;
    (answer.status, answer.json())
}

#[tokio::test]
async fn directories_are_made_listed_moved_and_removed() {
    let world = World::start().await;
    let home = world.home().display().to_string();
    let (status, made) = fs(&world, "MakeDir", json!({"path": "a/b/c"})).await;
    assert_eq!(status, 200, "{made}");
    assert_eq!(made["entry"]["path"], format!("{home}/a/b/c"));
    assert_eq!(made["entry"]["type"], "FILE_TYPE_DIRECTORY");
    assert_eq!(made["entry"]["owner"], "user");
    assert_eq!(made["entry"]["permissions"], "drwxr-xr-x");
    let (status, again) = fs(&world, "MakeDir", json!({"path": "a/b/c"})).await;
    assert_eq!(
        (status, again["code"].as_str()),
        (409, Some("already_exists"))
    );
    std::fs::write(world.home().join("a/file"), "12345").unwrap();
    let (status, over) = fs(&world, "MakeDir", json!({"path": "a/file"})).await;
    assert_eq!(
        (status, over["code"].as_str()),
        (400, Some("invalid_argument"))
    );
    let names = |listed: &Value| {
        let entries = listed["entries"].as_array().unwrap().clone();
        entries
            .iter()
            .map(|entry| entry["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let (_, listed) = fs(&world, "ListDir", json!({"path": "~/a"})).await;
    assert_eq!(names(&listed), ["b", "file"]);
    let (_, listed) = fs(&world, "ListDir", json!({"path": "a", "depth": 2})).await;
    assert_eq!(names(&listed), ["b", "c", "file"]);
    assert_eq!(listed["entries"][2]["size"], "5");
    let (status, refused) = fs(&world, "ListDir", json!({"path": "a/file"})).await;
    assert_eq!(
        (status, refused["code"].as_str()),
        (400, Some("invalid_argument"))
    );
    let (_, moved) = fs(
        &world,
        "Move",
        json!({"source": "a/file", "destination": "x/y/z"}),
    )
    .await;
    assert_eq!(moved["entry"]["path"], format!("{home}/x/y/z"));
    let (status, lost) = fs(
        &world,
        "Move",
        json!({"source": "nope", "destination": "n"}),
    )
    .await;
    assert_eq!((status, lost["code"].as_str()), (404, Some("not_found")));
    for _ in 0..2 {
        assert_eq!(
            fs(&world, "Remove", json!({"path": "a"})).await,
            (200, json!({}))
        );
    }
    let (status, lost) = fs(&world, "Stat", json!({"path": "a"})).await;
    assert_eq!((status, lost["code"].as_str()), (404, Some("not_found")));
}

#[tokio::test]
async fn symlinks_have_the_type_of_their_target() {
    let world = World::start().await;
    let target = world.home().join("dir");
    std::fs::create_dir(&target).unwrap();
    std::os::unix::fs::symlink(&target, world.home().join("link")).unwrap();
    std::os::unix::fs::symlink("nowhere", world.home().join("broken")).unwrap();
    let (_, found) = fs(&world, "Stat", json!({"path": "link"})).await;
    let entry = &found["entry"];
    assert_eq!(entry["type"], "FILE_TYPE_DIRECTORY");
    assert_eq!(entry["symlinkTarget"], target.display().to_string());
    assert_eq!(entry["permissions"], "Lrwxrwxrwx");
    assert_eq!(entry["mode"], 0o755);
    let (_, found) = fs(&world, "Stat", json!({"path": "broken"})).await;
    assert_eq!(found["entry"]["type"], "FILE_TYPE_UNSPECIFIED");
}

#[tokio::test]
async fn changes_are_streamed() {
    let world = World::start().await;
    let watch = json!({"path": "~", "recursive": true, "includeEntry": true}).to_string();
    let mut frames = world
        .open("filesystem.Filesystem/WatchDir", &[&watch], &[])
        .await;
    assert_eq!(frames.message().await, json!({"start": {}}));
    std::fs::write(world.home().join("new"), "1").unwrap();
    let seen = frames.message().await;
    assert_eq!(seen["filesystem"]["name"], "new");
    assert_eq!(seen["filesystem"]["type"], "EVENT_TYPE_CREATE");
    assert_eq!(seen["filesystem"]["entry"]["type"], "FILE_TYPE_FILE");
    let (_, end) = world
        .open(
            "filesystem.Filesystem/WatchDir",
            &[r#"{"path":"/not/there"}"#],
            &[],
        )
        .await
        .rest()
        .await;
    assert_eq!(end["error"]["code"], "not_found");
    let quick = [("connect-timeout-ms", "100")];
    let mut frames = world
        .open("filesystem.Filesystem/WatchDir", &[&watch], &quick)
        .await;
    assert_eq!(frames.rest().await.1["error"]["code"], "deadline_exceeded");
}

#[tokio::test]
async fn changes_are_polled() {
    let world = World::start().await;
    let (status, made) = fs(&world, "CreateWatcher", json!({"path": "~"})).await;
    assert_eq!(status, 200, "{made}");
    std::fs::write(world.home().join("new"), "1").unwrap();
    let mut seen = Vec::new();
    let begin = Instant::now();
    while !seen
        .iter()
        .any(|event: &Value| event["type"] == "EVENT_TYPE_CREATE")
    {
        assert!(begin.elapsed() < PATIENCE);
        let (status, events) = fs(&world, "GetWatcherEvents", made.clone()).await;
        assert_eq!(status, 200, "{events}");
        seen.extend(events["events"].as_array().unwrap().clone());
    }
    assert_eq!(seen[0]["name"], "new");
    assert_eq!(
        fs(&world, "RemoveWatcher", made.clone()).await,
        (200, json!({}))
    );
    for procedure in ["RemoveWatcher", "GetWatcherEvents"] {
        let (status, gone) = fs(&world, procedure, made.clone()).await;
        assert_eq!((status, gone["code"].as_str()), (404, Some("not_found")));
    }
}
