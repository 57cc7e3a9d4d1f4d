//! Files of a real guest.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{
    collections::BTreeMap,
    io::Read,
    os::unix::fs::{MetadataExt, symlink},
};

use common::{PATIENCE, TestGuest, eventually};
use woodfrog_guest_client::{FileRead, GuestError, WatchStream, proto::*};

fn at(path: &str) -> PathRequest {
    PathRequest {
        path: path.to_owned(),
        user: Some("user".to_owned()),
        ..PathRequest::default()
    }
}

fn tagged(path: &str) -> PathRequest {
    PathRequest {
        xattr_prefix: Some("user.test.".to_owned()),
        ..at(path)
    }
}

fn code(error: GuestError) -> ErrorCode {
    error
        .code()
        .unwrap_or_else(|| panic!("not a refusal: {error:?}"))
}

fn pairs(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

#[tokio::test]
async fn writes_belong_to_the_user_and_carry_metadata() {
    let guest = TestGuest::start().await;
    let content: Vec<u8> = (0..1_000_000u32).map(|i| (i % 253) as u8).collect();
    let request = WriteRequest {
        at: tagged("a/b/c.bin"),
        metadata: Some(pairs(&[("k", "v"), ("other", "w")])),
        ..WriteRequest::default()
    };
    let entry = guest
        .client
        .write_all(request.clone(), &content)
        .await
        .unwrap();
    let path = guest.home().join("a/b/c.bin");
    assert_eq!(std::fs::read(&path).unwrap(), content);
    assert_eq!(
        (entry.kind, entry.size, entry.mode & 0o777),
        (EntryKind::File, 1_000_000, 0o644)
    );
    assert_eq!(
        (entry.owner.as_str(), entry.group.as_str()),
        ("user", "user")
    );
    assert_eq!(entry.path, path.to_str().unwrap());
    assert_eq!(entry.metadata, pairs(&[("k", "v"), ("other", "w")]));
    let parent = std::fs::metadata(guest.home().join("a")).unwrap();
    assert_eq!(
        (parent.uid(), parent.gid(), parent.mode() & 0o777),
        (54321, 54322, 0o755)
    );

    // Metadata is replaced as a whole, and an atomic write keeps the file's mode.
    std::process::Command::new("chmod")
        .arg("600")
        .arg(&path)
        .status()
        .unwrap();
    let inode = std::fs::metadata(&path).unwrap().ino();
    let request = WriteRequest {
        replace: WriteMode::Atomic,
        metadata: Some(pairs(&[("k", "new")])),
        ..request
    };
    let entry = guest
        .client
        .write_all(request.clone(), b"short")
        .await
        .unwrap();
    assert_eq!((entry.size, entry.mode & 0o777), (5, 0o600));
    assert_eq!(entry.metadata, pairs(&[("k", "new")]));
    assert_ne!(std::fs::metadata(&path).unwrap().ino(), inode);

    // Given up half-way, an atomic write changes nothing and leaves nothing.
    let mut writer = guest.client.write_file(request).await.unwrap();
    writer.write(b"half").await.unwrap();
    drop(writer);
    eventually("the temporary file goes", async || {
        std::fs::read_dir(guest.home().join("a/b")).unwrap().count() == 1
    })
    .await;
    assert_eq!(std::fs::read(&path).unwrap(), b"short");
}

#[tokio::test]
async fn refused_writes_say_why() {
    let guest = TestGuest::start().await;
    std::fs::write(guest.home().join("file"), "x").unwrap();
    let big = vec![0; 3_000_000];
    let write = async |path: &str| {
        let request = WriteRequest {
            at: at(path),
            ..WriteRequest::default()
        };
        code(guest.client.write_all(request, &big).await.unwrap_err())
    };
    assert_eq!(write("~").await, ErrorCode::IsADirectory);
    assert_eq!(write("file/below").await, ErrorCode::NotADirectory);
    std::process::Command::new("mkfifo")
        .arg(guest.home().join("pipe"))
        .status()
        .unwrap();
    assert_eq!(write("pipe").await, ErrorCode::InvalidArgument);
    assert_eq!(write("a\0b").await, ErrorCode::InvalidArgument);
    let read = ReadRequest {
        at: at("pipe"),
        ..ReadRequest::default()
    };
    assert_eq!(
        code(guest.client.read_file(read).await.err().unwrap()),
        ErrorCode::InvalidArgument
    );
    let at = PathRequest {
        user: Some("ghost".to_owned()),
        ..at("x")
    };
    assert_eq!(
        code(guest.client.stat(at).await.unwrap_err()),
        ErrorCode::UnknownUser
    );
}

#[tokio::test]
async fn reads_by_descriptor_and_by_stream() {
    let guest = TestGuest::start().await;
    std::fs::write(guest.home().join("f"), "0123456789").unwrap();
    let request = ReadRequest {
        at: at("~/f"),
        ..ReadRequest::default()
    };
    match guest.client.read_file(request.clone()).await.unwrap() {
        FileRead::File { mut file, entry } => {
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            assert_eq!((text.as_str(), entry.size), ("0123456789", 10));
        }
        FileRead::Stream { .. } => panic!("a plain file should be passed"),
    }
    let part = ReadRequest {
        offset: 3,
        length: Some(4),
        ..request
    };
    let (mut stream, _) = guest.client.read_stream(part).await.unwrap();
    assert_eq!(&stream.next().await.unwrap().unwrap()[..], b"3456");
    assert!(stream.next().await.unwrap().is_none());

    // Files of /proc say that they are empty, and their file system is not to be trusted.
    let request = ReadRequest {
        at: at("/proc/version"),
        ..ReadRequest::default()
    };
    let FileRead::Stream { mut stream, .. } = guest.client.read_file(request).await.unwrap() else {
        panic!("/proc must not be passed");
    };
    let text = stream.next().await.unwrap().unwrap();
    assert_eq!(&text[..], std::fs::read("/proc/version").unwrap());

    let write = WriteRequest {
        at: at("deep/er/new"),
        mode: Some(0o640),
        ..WriteRequest::default()
    };
    let (mut file, entry) = guest.client.create_file(write).await.unwrap();
    assert_eq!((entry.owner.as_str(), entry.mode & 0o777), ("user", 0o640));
    std::io::Write::write_all(&mut file, b"direct").unwrap();
    assert_eq!(
        std::fs::read(guest.home().join("deep/er/new")).unwrap(),
        b"direct"
    );

    let read = async |path: &str| {
        let request = ReadRequest {
            at: at(path),
            ..ReadRequest::default()
        };
        guest.client.read_file(request).await.err().unwrap()
    };
    let missing = read("missing").await;
    let path = guest.path("home/missing");
    assert_eq!(missing.to_string(), format!("path '{path}' does not exist"));
    assert_eq!(code(missing), ErrorCode::NotFound);
    assert_eq!(code(read("~").await), ErrorCode::IsADirectory);
}

#[tokio::test]
async fn directories_moves_and_removals() {
    let guest = TestGuest::start().await;
    let client = &guest.client;
    let request = MkdirRequest {
        at: at("x/y"),
        mode: Some(0o700),
    };
    let entry = client.mkdir(request.clone()).await.unwrap();
    assert_eq!(
        (entry.kind, entry.mode & 0o777),
        (EntryKind::Directory, 0o700)
    );
    assert_eq!(
        code(client.mkdir(request).await.unwrap_err()),
        ErrorCode::AlreadyExists
    );
    std::fs::write(guest.home().join("x/y/f"), "1").unwrap();
    let to = "z/w/moved".to_owned();
    let entry = client
        .rename(MoveRequest {
            from: at("x/y"),
            to,
        })
        .await
        .unwrap();
    assert_eq!(entry.path, guest.path("home/z/w/moved"));
    let again = MoveRequest {
        from: at("x/y"),
        to: "q".to_owned(),
    };
    assert_eq!(
        code(client.rename(again).await.unwrap_err()),
        ErrorCode::NotFound
    );
    std::fs::create_dir(guest.home().join("keep")).unwrap();
    std::fs::write(guest.home().join("keep/f"), "1").unwrap();
    symlink(guest.home().join("keep"), guest.home().join("z/link")).unwrap();
    client.remove(at("z")).await.unwrap();
    client.remove(at("z")).await.unwrap();
    assert!(!guest.home().join("z").exists());
    assert!(guest.home().join("keep/f").exists());
    assert_eq!(
        code(client.remove(at("/")).await.unwrap_err()),
        ErrorCode::InvalidArgument
    );
}

#[tokio::test]
async fn lists_to_a_depth_with_links() {
    let guest = TestGuest::start().await;
    for dir in ["d/a/deep", "d/b"] {
        std::fs::create_dir_all(guest.home().join(dir)).unwrap();
    }
    std::fs::write(guest.home().join("d/a/deep/f"), "x").unwrap();
    std::fs::write(guest.home().join("d/z"), "xyz").unwrap();
    symlink("z", guest.home().join("d/to-file")).unwrap();
    symlink("nowhere", guest.home().join("d/dangling")).unwrap();
    symlink("d", guest.home().join("link")).unwrap();
    let list = async |path: &str, depth, max_entries| {
        let request = ListRequest {
            at: at(path),
            depth,
            max_entries,
        };
        guest.client.list(request).await
    };
    let names = |listing: &woodfrog_guest_client::Listing, base: &str| -> Vec<String> {
        let base = format!("{}/", guest.path(base));
        listing
            .entries
            .iter()
            .map(|e| e.path.strip_prefix(&base).unwrap().to_owned())
            .collect()
    };
    let one = list("d", 0, None).await.unwrap();
    assert_eq!(
        names(&one, "home/d"),
        ["a", "b", "dangling", "to-file", "z"]
    );
    let two = list("link", 2, None).await.unwrap();
    assert_eq!(
        names(&two, "home/link"),
        ["a", "a/deep", "b", "dangling", "to-file", "z"]
    );
    let all = list("d", 9, None).await.unwrap();
    assert!(names(&all, "home/d").contains(&"a/deep/f".to_owned()));
    let some = list("d", 9, Some(3)).await.unwrap();
    assert_eq!((some.entries.len(), some.truncated), (3, true));
    let link = one.entries[3].link.as_ref().unwrap();
    let target = link.target.as_ref().unwrap();
    assert_eq!(
        (link.text.as_str(), target.kind, target.size),
        ("z", EntryKind::File, 3)
    );
    assert!(target.path.ends_with("/home/d/z"));
    assert_eq!(one.entries[2].link.as_ref().unwrap().target, None);
    assert_eq!(
        code(list("d/z", 1, None).await.unwrap_err()),
        ErrorCode::NotADirectory
    );
    assert_eq!(
        code(list("nope", 1, None).await.unwrap_err()),
        ErrorCode::NotFound
    );

    for i in 0..2000 {
        std::fs::write(guest.home().join(format!("d/b/{i:05}")), "").unwrap();
    }
    let many = list("d/b", 1, None).await.unwrap();
    assert_eq!((many.entries.len(), many.truncated), (2000, false));
    assert!(many.entries.is_sorted_by(|a, b| a.name < b.name));
}

/// Reads events until `wanted` came.
async fn expect(stream: &mut WatchStream, kind: WatchKind, name: &str) -> WatchEvent {
    let find = async {
        loop {
            let event = stream.next().await.unwrap().expect("the watch ended");
            if (event.kind, event.name.as_str()) == (kind, name) {
                return event;
            }
        }
    };
    tokio::time::timeout(PATIENCE, find)
        .await
        .unwrap_or_else(|_| panic!("no {kind:?} of {name}"))
}

#[tokio::test]
async fn watches_report_changes_below() {
    let guest = TestGuest::start().await;
    let dir = guest.home().join("w");
    std::fs::create_dir_all(dir.join("old")).unwrap();
    let request = WatchRequest {
        at: at("w"),
        depth: WatchDepth::Recursive,
        entries: WatchEntries::Include,
        ..WatchRequest::default()
    };
    let mut stream = guest.client.watch(request.clone()).await.unwrap();
    std::fs::write(dir.join("f"), "hello").unwrap();
    expect(&mut stream, WatchKind::Create, "f").await;
    let event = expect(&mut stream, WatchKind::Write, "f").await;
    assert_eq!(event.entry.unwrap().owner, "root");
    std::process::Command::new("chmod")
        .arg("600")
        .arg(dir.join("f"))
        .status()
        .unwrap();
    expect(&mut stream, WatchKind::Chmod, "f").await;
    std::fs::rename(dir.join("f"), dir.join("old/g")).unwrap();
    expect(&mut stream, WatchKind::Rename, "f").await;
    expect(&mut stream, WatchKind::Create, "old/g").await;
    std::fs::create_dir_all(dir.join("new/below")).unwrap();
    expect(&mut stream, WatchKind::Create, "new/below").await;
    std::fs::write(dir.join("new/below/h"), "").unwrap();
    expect(&mut stream, WatchKind::Create, "new/below/h").await;
    std::fs::remove_file(dir.join("old/g")).unwrap();
    let event = expect(&mut stream, WatchKind::Remove, "old/g").await;
    assert_eq!(event.entry, None);
    std::fs::remove_dir_all(&dir).unwrap();
    expect(&mut stream, WatchKind::Remove, ".").await;
    let end = tokio::time::timeout(PATIENCE, stream.next()).await.unwrap();
    assert!(end.unwrap().is_none());
    let missing = guest.client.watch(request).await.err().unwrap();
    assert_eq!(code(missing), ErrorCode::NotFound);
    let proc = WatchRequest {
        at: at("/etc/passwd"),
        ..WatchRequest::default()
    };
    assert_eq!(
        code(guest.client.watch(proc).await.err().unwrap()),
        ErrorCode::NotADirectory
    );
}
