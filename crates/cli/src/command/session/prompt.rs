//! Prompting from the terminal.

use std::io::Write as _;

use reqwest::Method;
use serde_json::{Value, json};
use woodfrog_wire::native::session::{SessionDetail, SessionEvent, TurnResult};

use super::log::Followed;
use super::{Client, Outcome, Target, output};

/// A turn that did not end as turns do.
const EXIT_NOT_DONE: u8 = 1;

pub(super) async fn run(id: &str, text: &str, author: Option<&str>, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let detail: SessionDetail = client.json(client.get(&["sessions", id])).await?;
    let mut stream = Followed::open(&client, id, detail.last).await?;
    let request = client.request(Method::POST, client.route(&["sessions", id, "prompt"]));
    let body = json!({"text": text, "author": author});
    // A turn takes as long as it takes.
    let prompting = client.json_unhurried::<TurnResult>(request.json(&body));
    tokio::pin!(prompting);
    let mut screen = Screen::new(target.json);
    let result = loop {
        tokio::select! {
            result = &mut prompting => break result?,
            event = stream.next() => match event? {
                Some(event) => screen.show(&event)?,
                None => break (&mut prompting).await?,
            },
        }
    };
    // The answer may overtake what was said before it.
    while !screen.over {
        match stream.next().await? {
            Some(event) => screen.show(&event)?,
            None => break,
        }
    }
    screen.close(&result)
}

/// What a permission request asks, and its options.
pub(super) fn question(params: &Value) -> String {
    let title = params["toolCall"]["title"].as_str().unwrap_or("permission");
    let options = params["options"].as_array().map_or(&[][..], Vec::as_slice);
    let options: Vec<&str> = options
        .iter()
        .filter_map(|option| option["optionId"].as_str())
        .collect();
    format!("{title} [{}]", options.join(" | "))
}

/// The turn as a person sees it.
struct Screen {
    json: bool,
    /// Whether the cursor is behind text.
    open: bool,
    /// Whether the turn that was begun here is over.
    over: bool,
    turn: Option<u64>,
}

impl Screen {
    const fn new(json: bool) -> Self {
        Self {
            json,
            open: false,
            over: false,
            turn: None,
        }
    }

    fn show(&mut self, event: &SessionEvent) -> std::io::Result<()> {
        if self.json {
            output::line(&serde_json::to_string(event)?)?;
        }
        let turn = event.payload["turn"].as_u64();
        match event.kind.as_str() {
            // The first prompt that comes is ours: nobody else's was there when we began to read.
            "chat.user" if self.turn.is_none() => self.turn = turn,
            "turn.ended" if turn == self.turn && turn.is_some() => self.over = true,
            "message" if !self.json => self.message(event)?,
            "agent.exited" if !self.json => {
                self.note(&format!("the agent ended: {}", event.payload["status"]))?;
            }
            "session.restored" if !self.json => self.note("the agent was brought back")?,
            _ => {}
        }
        Ok(())
    }

    fn message(&mut self, event: &SessionEvent) -> std::io::Result<()> {
        let params = &event.payload["params"];
        if event.payload["method"] == "session/request_permission" {
            let id = event.payload["id"].to_string();
            let asked = question(params);
            return self.note(&format!(
                "asks: {asked} (woodfrog session answer {} '{id}' OPTION)",
                event.session
            ));
        }
        let update = &params["update"];
        let title = || update["title"].as_str().unwrap_or("tool");
        match update["sessionUpdate"].as_str() {
            Some("agent_message_chunk") => {
                let text = update["content"]["text"].as_str().unwrap_or_default();
                let mut out = std::io::stdout().lock();
                out.write_all(text.as_bytes())?;
                out.flush()?;
                self.open = !text.ends_with('\n');
                Ok(())
            }
            Some("tool_call") => self.note(&format!("→ {}", title())),
            Some("tool_call_update") => match update["status"].as_str() {
                Some("completed") => self.note("  done"),
                Some("failed") => self.note("  failed"),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn note(&mut self, text: &str) -> std::io::Result<()> {
        if std::mem::take(&mut self.open) {
            output::line("")?;
        }
        output::note(text);
        Ok(())
    }

    fn close(mut self, result: &TurnResult) -> Outcome {
        if self.json {
            output::line(&serde_json::to_string(result)?)?;
        } else {
            if std::mem::take(&mut self.open) {
                output::line("")?;
            }
            output::note(&summary(result));
        }
        Ok(match result.stop_reason {
            Some(_) => 0,
            None => EXIT_NOT_DONE,
        })
    }
}

fn summary(result: &TurnResult) -> String {
    let mut text = match (&result.stop_reason, &result.error) {
        (Some(reason), _) => reason.clone(),
        (None, Some(error)) => format!("failed: {}", error["message"]),
        (None, None) => "ended".to_owned(),
    };
    if let Some(usage) = &result.usage {
        let tokens = |name: &str| usage[name].as_u64().unwrap_or(0);
        text.push_str(&format!(
            " · {} tokens in, {} out",
            tokens("inputTokens"),
            tokens("outputTokens")
        ));
        if let Some(cost) = usage["cost"]["amount"].as_f64() {
            let currency = usage["cost"]["currency"].as_str().unwrap_or("");
            text.push_str(&format!(" · {cost} {currency}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_summed_up() {
        let result = |value: Value| serde_json::from_value::<TurnResult>(value).expect("a result");
        let done = result(
            json!({"stop_reason": "end_turn", "usage": {"inputTokens": 3, "outputTokens": 5}}),
        );
        assert_eq!(summary(&done), "end_turn · 3 tokens in, 5 out");
        let failed = result(json!({"error": {"code": 1, "message": "no"}}));
        assert_eq!(summary(&failed), "failed: \"no\"");
    }
}
