//! As much of the guest's protocol as the cases need.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use woodfrog_guest_proto::{
    Decoder, Exit, Follow, Frame, FrameKind, Hello, ProcessEnd, Request, StartRequest, encode_json,
    parse_json,
};

async fn ask(stream: &mut UnixStream, request: &Request) {
    let frame = encode_json(FrameKind::Request, request).expect("encoded");
    stream.write_all(&frame).await.expect("sent");
}

/// The payload of the frame that ends the operation.
async fn end(stream: &mut UnixStream) -> impl AsRef<[u8]> {
    let mut decoder = Decoder::new();
    loop {
        while let Some(frame) = decoder.next_frame().expect("a frame") {
            match frame {
                Frame::End(payload) => return payload,
                Frame::Error(payload) => panic!("{}", String::from_utf8_lossy(&payload)),
                Frame::Request(_) | Frame::Reply(_) | Frame::Data { .. } | Frame::Event(_) => {}
            }
        }
        let read = stream.read_buf(decoder.buffer()).await.expect("read");
        assert_ne!(read, 0, "the guest hung up");
    }
}

/// Tells one guest from another.
pub async fn boot_id(mut stream: UnixStream) -> String {
    ask(&mut stream, &Request::Hello {}).await;
    let payload = end(&mut stream).await;
    let hello: Hello = parse_json(payload.as_ref()).expect("hello");
    hello.boot_id
}

/// Starts a shell's script as root and leaves it alone.
pub async fn detach(mut stream: UnixStream, script: &str) {
    let start = StartRequest {
        cmd: "/bin/sh".to_owned(),
        args: vec!["-c".to_owned(), script.to_owned()],
        user: Some("root".to_owned()),
        cwd: Some("/".to_owned()),
        follow: Follow::Detach,
        ..StartRequest::default()
    };
    ask(&mut stream, &Request::Start(start)).await;
    end(&mut stream).await;
}

/// Runs a shell's script as root; what it wrote.
pub async fn script(mut stream: UnixStream, script: &str) -> String {
    let start = StartRequest {
        cmd: "/bin/sh".to_owned(),
        args: vec!["-c".to_owned(), script.to_owned()],
        user: Some("root".to_owned()),
        cwd: Some("/".to_owned()),
        ..StartRequest::default()
    };
    ask(&mut stream, &Request::Start(start)).await;
    let (mut decoder, mut said) = (Decoder::new(), Vec::new());
    loop {
        while let Some(frame) = decoder.next_frame().expect("a frame") {
            match frame {
                Frame::Data { bytes, .. } => said.extend_from_slice(&bytes),
                Frame::End(_) => return String::from_utf8_lossy(&said).into_owned(),
                Frame::Error(payload) => panic!("{}", String::from_utf8_lossy(&payload)),
                Frame::Request(_) | Frame::Reply(_) | Frame::Event(_) => {}
            }
        }
        let read = stream.read_buf(decoder.buffer()).await.expect("read");
        assert_ne!(read, 0, "the guest hung up");
    }
}

/// Runs a program with one argument as root; its exit code.
pub async fn run(mut stream: UnixStream, program: &str, arg: &str) -> i32 {
    let start = StartRequest {
        cmd: program.to_owned(),
        args: vec![arg.to_owned()],
        user: Some("root".to_owned()),
        cwd: Some("/".to_owned()),
        ..StartRequest::default()
    };
    ask(&mut stream, &Request::Start(start)).await;
    let payload = end(&mut stream).await;
    let ended: ProcessEnd = parse_json(payload.as_ref()).expect("an end");
    match ended.exit {
        Exit::Exited { code } => code,
        Exit::Signaled { .. } => panic!("{}", ended.status),
    }
}
