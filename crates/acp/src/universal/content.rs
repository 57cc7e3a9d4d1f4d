//! Content of ACP as parts of items.

use serde_json::{Value, json};

/// A content block.
pub(super) fn part(block: &Value) -> Value {
    let text = |name: &str| block[name].as_str();
    match text("type") {
        Some("text") => json!({"type": "text", "text": text("text").unwrap_or_default()}),
        Some("image") => {
            let uri = text("uri").map(str::to_owned);
            let data = || {
                let mime = text("mimeType").unwrap_or("application/octet-stream");
                format!("data:{mime};base64,{}", text("data").unwrap_or_default())
            };
            let path = uri.unwrap_or_else(data);
            json!({"type": "image", "path": path, "mime": block["mimeType"]})
        }
        Some("resource_link") => json!({
            "type": "file_ref", "path": text("uri").unwrap_or_default(), "action": "read",
        }),
        _ => json!({"type": "json", "json": block}),
    }
}

/// What is text in the content of a tool call, and what came raw.
pub(super) fn output(content: &Value, raw: &Value) -> String {
    let mut texts = Vec::new();
    for entry in content.as_array().into_iter().flatten() {
        match entry["type"].as_str() {
            Some("content") => match entry["content"]["text"].as_str() {
                Some(text) => texts.push(text.to_owned()),
                None => texts.push(entry["content"].to_string()),
            },
            Some("terminal") => texts.push(format!("terminal {}", entry["terminalId"])),
            _ => {}
        }
    }
    if texts.is_empty() {
        match raw {
            Value::Null => {}
            Value::String(text) => texts.push(text.clone()),
            other => texts.push(other.to_string()),
        }
    }
    texts.join("\n")
}

/// The files that a tool call is about.
pub(super) fn files(kind: &str, content: &Value, locations: &Value) -> Vec<Value> {
    let mut parts: Vec<Value> = Vec::new();
    for entry in content.as_array().into_iter().flatten() {
        if entry["type"] != "diff" {
            continue;
        }
        let old = entry["oldText"].as_str();
        let action = if old.is_some() { "patch" } else { "write" };
        let new = entry["newText"].as_str().unwrap_or_default();
        let path = entry["path"].as_str().unwrap_or_default();
        let diff = diff(path, old.unwrap_or_default(), new);
        parts.push(json!({"type": "file_ref", "path": path, "action": action, "diff": diff}));
    }
    if parts.is_empty() && kind == "read" {
        let paths = locations.as_array().into_iter().flatten();
        let paths = paths.filter_map(|location| location["path"].as_str());
        parts.extend(paths.map(|path| json!({"type": "file_ref", "path": path, "action": "read"})));
    }
    parts
}

/// What differs, as one hunk of a unified diff.
fn diff(path: &str, old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same = |pairs: &mut dyn Iterator<Item = (&&str, &&str)>| {
        pairs.take_while(|(one, two)| one == two).count()
    };
    let head = same(&mut old.iter().zip(&new));
    let rest = old.len().min(new.len()) - head;
    let tail = same(&mut old.iter().rev().zip(new.iter().rev())).min(rest);
    let gone = old.get(head..old.len() - tail).unwrap_or_default();
    let come = new.get(head..new.len() - tail).unwrap_or_default();
    let start = |lines: &[&str]| if lines.is_empty() { head } else { head + 1 };
    let mut text = format!(
        "--- a/{path}\n+++ b/{path}\n@@ -{},{} +{},{} @@\n",
        start(gone),
        gone.len(),
        start(come),
        come.len()
    );
    let mut lines = |sign: char, lines: &[&str]| {
        for line in lines {
            text.push(sign);
            text.push_str(line);
            text.push('\n');
        }
    };
    lines('-', gone);
    lines('+', come);
    text
}

/// A plan, a line for each entry.
pub(super) fn plan(update: &Value) -> String {
    let entries = update["entries"].as_array().into_iter().flatten();
    let lines = entries.map(|entry| {
        let sign = match entry["status"].as_str() {
            Some("completed") => "[x]",
            Some("in_progress") => "[>]",
            _ => "[ ]",
        };
        format!("{sign} {}", entry["content"].as_str().unwrap_or_default())
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_is_what_differs() {
        let all = |old, new| diff("f", old, new);
        let head = "--- a/f\n+++ b/f\n";
        assert_eq!(
            all("a\nb\nc\n", "a\nx\nc\n"),
            format!("{head}@@ -2,1 +2,1 @@\n-b\n+x\n")
        );
        assert_eq!(all("", "a\n"), format!("{head}@@ -0,0 +1,1 @@\n+a\n"));
        assert_eq!(all("a\na\n", "a\n"), format!("{head}@@ -2,1 +1,0 @@\n-a\n"));
        assert_eq!(all("a", "a"), format!("{head}@@ -1,0 +1,0 @@\n"));
    }

    #[test]
    fn blocks_become_parts() {
        for (block, wanted) in [
            (
                json!({"type": "text", "text": "x"}),
                json!({"type": "text", "text": "x"}),
            ),
            (
                json!({"type": "image", "mimeType": "image/png", "data": "QQ=="}),
                json!({"type": "image", "path": "data:image/png;base64,QQ==", "mime": "image/png"}),
            ),
            (
                json!({"type": "resource_link", "uri": "file:///a", "name": "a"}),
                json!({"type": "file_ref", "path": "file:///a", "action": "read"}),
            ),
            (
                json!({"type": "audio", "data": "QQ=="}),
                json!({"type": "json", "json": {"type": "audio", "data": "QQ=="}}),
            ),
        ] {
            assert_eq!(part(&block), wanted);
        }
    }
}
