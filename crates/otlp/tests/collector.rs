//! Spans on their way to a collector.

use std::collections::HashMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use woodfrog_otlp::{Counts, Exporter, Options, QUEUE_SPANS};
use woodfrog_testkit::collector::{Collector, Manner};
use woodfrog_types::Timestamp;
use woodfrog_types::trace::{Attribute, Span};

/// Long enough for a busy machine; reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

fn options(endpoint: &str) -> Options {
    Options {
        endpoint: endpoint.to_owned(),
        headers: HashMap::from([("authorization".to_owned(), "Bearer hush".to_owned())]),
        gather: false,
        service_version: "1",
    }
}

fn span(number: u8) -> Span {
    Span {
        trace: [7; 16],
        id: [number; 8],
        parent: (number > 1).then_some([1; 8]),
        name: format!("span {number}"),
        from: Timestamp::from_millis(1_000),
        until: Timestamp::from_millis(2_500),
        attributes: vec![
            ("text", "frog".into()),
            ("count", u64::MAX.into()),
            ("number", Attribute::Number(0.5)),
            ("flag", Attribute::Flag(true)),
        ],
        error: (number == 2).then(|| "broken".to_owned()),
    }
}

async fn until(exporter: &Exporter, check: impl Fn(Counts) -> bool) -> Counts {
    let waited = async {
        while !check(exporter.counts()) {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waited).await;
    waited.expect("it never was so");
    exporter.counts()
}

#[tokio::test]
async fn spans_arrive_as_they_are() {
    let collector = Collector::start(Manner::Takes).expect("a collector");
    let (exporter, sender) = Exporter::new(options(collector.url())).expect("an exporter");
    let stop = CancellationToken::new();
    let sending = tokio::spawn(sender.run(stop.clone()));
    exporter.take(vec![span(1), span(2)]);
    until(&exporter, |counts| counts.sent == 2).await;
    let seen = collector.seen();
    assert_eq!(seen[0].trace, "07".repeat(16));
    assert_eq!(
        (seen[0].id.as_str(), seen[0].parent.as_str()),
        ("0101010101010101", "")
    );
    assert_eq!(seen[1].parent, seen[0].id);
    assert_eq!(
        seen.iter().map(|span| span.failed).collect::<Vec<_>>(),
        [false, true]
    );
    assert_eq!(seen[0].service, "woodfrog");
    assert_eq!(seen[0].headers["authorization"], "Bearer hush");
    let expected = [
        ("count", "9223372036854775807"),
        ("flag", "true"),
        ("number", "0.5"),
        ("text", "frog"),
    ];
    let attributes = seen[0].attributes.iter();
    let attributes: Vec<_> = attributes
        .map(|(name, value)| (&**name, &**value))
        .collect();
    assert_eq!(attributes, expected);
    // What is left when the server ends is sent, too.
    exporter.take(vec![span(3)]);
    stop.cancel();
    tokio::time::timeout(PATIENCE, sending)
        .await
        .expect("it ends")
        .expect("no panic");
    assert_eq!(collector.seen().len(), 3);
}

#[tokio::test]
async fn what_is_refused_is_counted_and_what_follows_is_tried() {
    let collector = Collector::start(Manner::Refuses(400)).expect("a collector");
    let (exporter, sender) = Exporter::new(options(collector.url())).expect("an exporter");
    tokio::spawn(sender.run(CancellationToken::new()));
    for lost in 1..=2 {
        exporter.take(vec![span(1)]);
        until(&exporter, |counts| counts.failed == lost).await;
    }
    assert_eq!(collector.requests(), 2, "such an answer is final");
    assert_eq!(collector.seen(), []);
}

#[tokio::test]
async fn a_collector_that_hangs_costs_spans_and_nobody_waits() {
    let collector = Collector::start(Manner::Hangs).expect("a collector");
    let (exporter, sender) = Exporter::new(options(collector.url())).expect("an exporter");
    let stop = CancellationToken::new();
    let sending = tokio::spawn(sender.run(stop.clone()));
    exporter.take(vec![span(1)]);
    let asked = async {
        while collector.requests() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, asked)
        .await
        .expect("it is asked");
    // While it hangs the queue takes what it has room for.
    exporter.take((0..QUEUE_SPANS + 5).map(|_| span(1)).collect());
    assert_eq!(
        exporter.counts(),
        Counts {
            sent: 0,
            overflowed: 5,
            failed: 0
        }
    );
    stop.cancel();
    tokio::time::timeout(PATIENCE, sending)
        .await
        .expect("it ends all the same")
        .expect("no panic");
}
