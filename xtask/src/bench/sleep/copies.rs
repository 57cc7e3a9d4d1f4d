//! Copies of a running sandbox.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use woodfrog_testkit::Server;
use woodfrog_testkit::api::Api;

use super::{Kind, make};
use crate::bench::sample::Sample;

/// Copies of one request.
const COUNT: usize = 10;
/// Requests.
const ROUNDS: usize = 5;

/// Ten copies at once, several times; each must answer a command.
pub(super) fn all(server: &Server, kind: Kind) -> Result<Vec<Sample>> {
    let mut api = Api::connect(server.url())?;
    let id = make(&mut api, kind)?;
    let mut each = Vec::new();
    let mut failed = None;
    for _ in 0..ROUNDS {
        match round(&mut api, &id) {
            Ok(millis) => each.push(millis),
            Err(error) => failed = Some(error),
        }
    }
    api.delete(&id)?;
    if let Some(error) = failed {
        return Err(error);
    }
    let name = format!("{}: fork, each of {COUNT}", kind.name);
    let sample = Sample::new(&name, each);
    println!("{sample}");
    Ok(vec![sample])
}

/// Milliseconds for each copy.
fn round(api: &mut Api, id: &str) -> Result<f64> {
    let start = Instant::now();
    let body = json!({ "count": COUNT, "timeout_seconds": 600 });
    let answer = api.must("POST", &format!("/sandboxes/{id}/fork"), Some(&body))?;
    let millis = start.elapsed().as_secs_f64() * 1000.0 / COUNT as f64;
    let items = answer["items"].as_array().context("the copies")?;
    let mut refused = None;
    for item in items {
        match item["sandbox"]["id"].as_str() {
            Some(copy) => {
                let said = api.shell(copy, "echo here")?;
                api.delete(copy)?;
                if said != "here\n" {
                    bail!("a copy said {said:?}");
                }
            }
            None => refused = Some(item["error"].clone()),
        }
    }
    match refused {
        Some(error) => bail!("a copy was refused: {}", Value::to_string(&error)),
        None => Ok(millis),
    }
}
