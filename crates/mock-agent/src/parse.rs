//! Prompts to steps.

use serde_json::Value;

use crate::message::Refusal;
use crate::script::{Step, echo};

/// Steps of one script.
const STEPS_MAX: usize = 1000;
/// Longest wait, in milliseconds.
const DELAY_MAX: u64 = 3_600_000;
/// Chunks of one step, and bytes of one chunk.
const CHUNKS_MAX: u64 = 16 << 20;
const CHUNK_MAX: u64 = 1 << 20;
/// Bytes of one line.
const LINE_MAX: u64 = 1 << 30;

/// What every line of a script begins with.
const PREFIX: &str = "mock:";
/// The question that is answered from memory.
const QUESTION: &str = "what did i say before?";
/// The kinds of tool call that the protocol has.
const KINDS: [&str; 10] = [
    "read",
    "edit",
    "delete",
    "move",
    "search",
    "execute",
    "think",
    "fetch",
    "switch_mode",
    "other",
];
const STOP_REASONS: [&str; 5] = [
    "end_turn",
    "max_tokens",
    "max_turn_requests",
    "refusal",
    "cancelled",
];

/// The steps of a prompt: a script, the question, or an echo.
pub(crate) fn steps(text: &str) -> Result<Vec<Step>, Refusal> {
    if text.trim().eq_ignore_ascii_case(QUESTION) {
        return Ok(vec![Step::Before]);
    }
    if !text.trim_start().starts_with(PREFIX) {
        return Ok(echo(text));
    }
    let mut steps = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let fault = |what: String| Refusal::params(format!("line {}: {what}", number + 1));
        let body = line
            .strip_prefix(PREFIX)
            .ok_or_else(|| fault("a line of a script begins with `mock:`".to_owned()))?;
        steps.push(step(body.trim()).map_err(fault)?);
        if steps.len() > STEPS_MAX {
            return Err(fault(format!("a script has at most {STEPS_MAX} steps")));
        }
    }
    Ok(steps)
}

fn step(body: &str) -> Result<Step, String> {
    let (word, rest) = cut(body);
    Ok(match word {
        "say" => Step::Say(text(rest)?),
        "think" => Step::Think(text(rest)?),
        "tool" => tool(rest)?,
        "tool-done" => tool_end(rest, "completed")?,
        "tool-fail" => tool_end(rest, "failed")?,
        "plan" => Step::Plan(plan(rest)?),
        "ask" => Step::Ask(some("a title", rest)?),
        "choose" => choose(rest)?,
        "anyway" => Step::Anyway,
        "usage" => usage(rest)?,
        "mode" => Step::Mode(some("a mode", rest)?),
        "title" => Step::Title(text(rest)?),
        "commands" => Step::Commands,
        "write" => {
            let (path, content) = cut(rest);
            Step::Write {
                path: some("a path", path)?,
                text: text(content)?,
            }
        }
        "read" => Step::Read(some("a path", rest)?),
        "env" => Step::Env(some("a name", rest)?),
        "cwd" => Step::Cwd,
        "settings" => Step::Settings,
        "before" => Step::Before,
        "blocks" => Step::Blocks,
        "delay" => Step::Delay(number(rest, DELAY_MAX)?),
        "chunks" => chunks(rest)?,
        "line" => Step::Line(number(rest, LINE_MAX)?),
        "request" => {
            let (method, params) = method(rest)?;
            Step::Request { method, params }
        }
        "notify" => {
            let (method, params) = method(rest)?;
            Step::Notify { method, params }
        }
        _ => misbehaviour(word, rest)?,
    })
}

/// The words of an agent that goes wrong.
fn misbehaviour(word: &str, rest: &str) -> Result<Step, String> {
    Ok(match word {
        "hang" => Step::Hang,
        "deaf" => Step::Deaf,
        "error" => {
            let (code, message) = cut(rest);
            Step::Error {
                code: code.parse().map_err(|_| format!("`{code}` is no code"))?,
                message: text(message)?,
            }
        }
        "stop" if STOP_REASONS.contains(&rest) => Step::Stop(rest.to_owned()),
        "stop" => return Err(format!("reasons are {}", STOP_REASONS.join(", "))),
        "crash" => {
            let (code, message) = cut(rest);
            Step::Crash {
                code: code.parse().map_err(|_| "a code of 0 to 255".to_owned())?,
                text: text(message)?,
            }
        }
        "stderr" => Step::Stderr(text(rest)?),
        "garbage" => Step::Garbage(text(rest)?),
        "raw" => Step::Raw(text(rest)?),
        "stray" => Step::Stray(serde_json::from_str(rest).map_err(|e| e.to_string())?),
        "twice" => Step::Twice,
        "close-stdout" => Step::CloseStdout,
        "ignore-signals" => Step::IgnoreSignals,
        _ => return Err(format!("there is no word `{word}`")),
    })
}

fn tool(rest: &str) -> Result<Step, String> {
    let (id, rest) = cut(rest);
    let (kind, title) = cut(rest);
    if !KINDS.contains(&kind) {
        return Err(format!("kinds are {}", KINDS.join(", ")));
    }
    Ok(Step::Tool {
        id: some("an id", id)?,
        kind: kind.to_owned(),
        title: some("a title", title)?,
    })
}

fn tool_end(rest: &str, status: &'static str) -> Result<Step, String> {
    let (id, content) = cut(rest);
    Ok(Step::ToolEnd {
        id: some("an id", id)?,
        status,
        text: text(content)?,
    })
}

/// `[x] done | [>] being done | to do`
fn plan(rest: &str) -> Result<Vec<(String, &'static str)>, String> {
    let entry = |part: &str| {
        let part = part.trim();
        let (status, content) = match (part.strip_prefix("[x]"), part.strip_prefix("[>]")) {
            (Some(content), _) => ("completed", content),
            (_, Some(content)) => ("in_progress", content),
            (None, None) => ("pending", part),
        };
        Ok((some("an entry", content.trim())?, status))
    };
    rest.split('|').map(entry).collect()
}

fn choose(rest: &str) -> Result<Step, String> {
    let mut parts = rest.split('|').map(|part| some("a text", part.trim()));
    let title = parts.next().unwrap_or_else(|| some("a question", ""))?;
    let options: Vec<String> = parts.collect::<Result<_, _>>()?;
    if options.is_empty() {
        return Err("a question and its answers, with `|` between".to_owned());
    }
    Ok(Step::Choose { title, options })
}

fn usage(rest: &str) -> Result<Step, String> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (used, size, cost) = match words[..] {
        [used, size] => (used, size, None),
        [used, size, amount] => (used, size, Some((amount, "USD"))),
        [used, size, amount, currency] => (used, size, Some((amount, currency))),
        _ => return Err("tokens used, size of the window, cost and currency".to_owned()),
    };
    let cost = cost.map(|(amount, currency)| match amount.parse::<f64>() {
        Ok(amount) if amount.is_finite() => Ok((amount, currency.to_owned())),
        _ => Err(format!("`{amount}` is no amount")),
    });
    Ok(Step::Usage {
        used: number(used, u64::MAX)?,
        size: number(size, u64::MAX)?,
        cost: cost.transpose()?,
    })
}

fn chunks(rest: &str) -> Result<Step, String> {
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (count, bytes, every) = match words[..] {
        [count, bytes] => (count, bytes, "0"),
        [count, bytes, every] => (count, bytes, every),
        _ => return Err("how many, of how many bytes, every how many milliseconds".to_owned()),
    };
    let bytes = number(bytes, CHUNK_MAX)?;
    Ok(Step::Chunks {
        left: number(count, CHUNKS_MAX)?,
        number: 0,
        bytes: usize::try_from(bytes).map_err(|e| e.to_string())?,
        every_ms: number(every, DELAY_MAX)?,
    })
}

fn method(rest: &str) -> Result<(String, Value), String> {
    let (method, params) = cut(rest);
    let params = match params {
        "" => Value::Null,
        text => serde_json::from_str(text).map_err(|e| e.to_string())?,
    };
    Ok((some("a method", method)?, params))
}

/// A number, with K, M or G for powers of 1024.
fn number(text: &str, max: u64) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K') => (text.trim_end_matches('K'), 10),
        Some(b'M') => (text.trim_end_matches('M'), 20),
        Some(b'G') => (text.trim_end_matches('G'), 30),
        _ => (text, 0),
    };
    let number = digits.parse::<u64>().ok();
    let number = number.and_then(|n| n.checked_mul(1 << shift));
    number
        .filter(|n| *n <= max)
        .ok_or_else(|| format!("`{text}` is no number up to {max}"))
}

/// The rest of a line as it is, or a JSON string when it begins with a quote.
fn text(rest: &str) -> Result<String, String> {
    if rest.starts_with('"') {
        serde_json::from_str(rest).map_err(|e| format!("the string: {e}"))
    } else {
        Ok(rest.to_owned())
    }
}

fn some(what: &str, rest: &str) -> Result<String, String> {
    match text(rest)? {
        empty if empty.is_empty() => Err(format!("{what} is missing")),
        text => Ok(text),
    }
}

/// The first word and the rest.
fn cut(text: &str) -> (&str, &str) {
    match text.split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim_start()),
        None => (text, ""),
    }
}
