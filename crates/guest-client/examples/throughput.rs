//! Measures how fast one process's output arrives: `throughput SOCKET [GIB]`.

use std::{sync::Arc, time::Instant};

use woodfrog_guest_client::{
    GuestClient, GuestError, PathConnector, ProcessEvent, proto::StartRequest,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), GuestError> {
    let mut args = std::env::args().skip(1);
    let socket = args.next().unwrap_or("/run/woodfrog/guest.sock".to_owned());
    let gib = args.next().unwrap_or("4".to_owned());
    let client = GuestClient::new(Arc::new(PathConnector(socket.into())));
    let began = Instant::now();
    for _ in 0..1000 {
        client.hello().await?;
    }
    println!("hello: {:.1} µs", began.elapsed().as_secs_f64() * 1e3);
    let began = Instant::now();
    for _ in 0..200 {
        let request = StartRequest {
            cmd: "/bin/true".to_owned(),
            ..StartRequest::default()
        };
        let mut stream = client.start(request).await?;
        while stream.next().await?.is_some() {}
    }
    println!(
        "run /bin/true: {:.2} ms",
        began.elapsed().as_secs_f64() * 5.0
    );
    let request = StartRequest {
        cmd: "head".to_owned(),
        args: vec!["-c".to_owned(), format!("{gib}G"), "/dev/zero".to_owned()],
        ..StartRequest::default()
    };
    let mut stream = client.start(request).await?;
    let (began, mut total) = (Instant::now(), 0);
    while let Some(event) = stream.next().await? {
        if let ProcessEvent::Output { bytes, .. } = event {
            total += bytes.len();
        }
    }
    let rate = total as f64 / began.elapsed().as_secs_f64() / 1e6;
    println!("output: {total} bytes, {rate:.0} MB/s");
    Ok(())
}
