//! How long sessions are kept, shown and set.

use reqwest::Method;
use woodfrog_wire::native::session::{Retention, RetentionView};

use super::{Client, Outcome, Target, output};
use crate::args::{Kept, KeptEntries};

const ROUTE: &[&str] = &["session-retention"];

/// Sets what is given, if anything is, and shows what holds then.
pub(super) async fn run(
    ended: Option<Kept>,
    age: Option<Kept>,
    entries: Option<KeptEntries>,
    reset: bool,
    target: &Target,
) -> Outcome {
    let client = Client::new(target)?;
    if reset {
        let request = client.request(Method::DELETE, client.route(ROUTE));
        client.send(request).await?;
    } else if ended.is_some() || age.is_some() || entries.is_some() {
        let present: RetentionView = client.json(client.get(ROUTE)).await?;
        let mut wanted = present.effective;
        if let Some(kept) = ended {
            wanted.ended_seconds = seconds(kept);
        }
        if let Some(kept) = age {
            wanted.age_seconds = seconds(kept);
        }
        if let Some(kept) = entries {
            wanted.entries = match kept {
                KeptEntries::All => None,
                KeptEntries::Last(count) => Some(count),
            };
        }
        let request = client.request(Method::PUT, client.route(ROUTE));
        client.send(request.json(&wanted)).await?;
    }
    let view: RetentionView = client.json(client.get(ROUTE)).await?;
    if target.json {
        output::json(&view)?;
        return Ok(0);
    }
    let Retention {
        ended_seconds,
        age_seconds,
        entries,
    } = view.effective;
    let time = |seconds: Option<u64>| match seconds {
        Some(seconds) => output::span(std::time::Duration::from_secs(seconds)),
        None => "for ever".to_owned(),
    };
    output::fields(&[
        ("ended sessions", time(ended_seconds)),
        ("entries of logs", time(age_seconds)),
        (
            "entries of one log",
            entries.map_or_else(|| "all".to_owned(), |count| format!("the last {count}")),
        ),
        (
            "set by",
            match view.own {
                Some(_) => "the workspace".to_owned(),
                None => "the server".to_owned(),
            },
        ),
    ])?;
    Ok(0)
}

fn seconds(kept: Kept) -> Option<u64> {
    match kept {
        Kept::Forever => None,
        Kept::Seconds(seconds) => Some(seconds),
    }
}
