//! The fenced blocks of a page, and the script they make.

use std::path::Path;

use anyhow::{Result, bail};

/// A fenced block.
pub(super) struct Block {
    pub(super) language: String,
    pub(super) text: String,
    /// Why it is not run.
    pub(super) not_run: Option<String>,
}

/// A page and its blocks, in their order.
pub(super) struct Page {
    pub(super) name: String,
    pub(super) blocks: Vec<Block>,
}

impl Page {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let name = path.file_name().unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        let text = std::fs::read_to_string(path)?;
        let (mut blocks, mut open, mut before) = (Vec::new(), None::<Block>, "");
        for line in text.lines() {
            match (&mut open, line.strip_prefix("```")) {
                (Some(_), Some("")) => blocks.extend(open.take()),
                (Some(block), _) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, Some("")) => bail!("{name}: a block without a language"),
                (None, Some(language)) => {
                    open = Some(Block {
                        language: language.to_owned(),
                        text: String::new(),
                        not_run: reason(before)?,
                    });
                }
                (None, None) => {}
            }
            before = line;
        }
        if open.is_some() {
            bail!("{name}: a block without an end");
        }
        Ok(Self { name, blocks })
    }

    /// The `sh` blocks as one script, and how many `woodfrog` commands are in it.
    pub(super) fn script(&self) -> (String, usize) {
        let (mut script, mut count) = (String::new(), 0);
        let run = |block: &&Block| block.language == "sh" && block.not_run.is_none();
        for block in self.blocks.iter().filter(run) {
            for line in block.text.lines() {
                count += usize::from(line.contains("woodfrog "));
                script.push_str(&command(line));
                script.push('\n');
            }
        }
        (script, count)
    }
}

/// The reason in `<!-- not run: reason -->`.
fn reason(line: &str) -> Result<Option<String>> {
    let Some(rest) = line.strip_prefix("<!-- not run: ") else {
        return Ok(None);
    };
    match rest.strip_suffix(" -->") {
        Some(reason) if !reason.trim().is_empty() => Ok(Some(reason.to_owned())),
        _ => bail!("no reason: {line}"),
    }
}

/// A line with its placeholders filled in: `ID` is the sandbox made last, `KEY_ID` the key called
/// `agents`. A server runs already, so the flags of `serve` are checked only; a terminal is made
/// for `shell`.
fn command(line: &str) -> String {
    let line = words(line, "ID", "\"$ID\"");
    let key = "\"$(woodfrog key list | awk '$2 == \"agents\" { print $1 }')\"";
    let line = words(&line, "KEY_ID", key);
    if let Some(flags) = line.strip_prefix("woodfrog serve") {
        return format!("woodfrog config check{flags}");
    }
    if line.starts_with("woodfrog sandbox create") {
        let plain = line.split(" #").next().unwrap_or_default();
        return format!("ID=$({plain})");
    }
    if line.starts_with("woodfrog sandbox shell") {
        return "script -qec \"woodfrog sandbox shell $ID\" /dev/null <<< exit".to_owned();
    }
    line
}

/// Replaces `word` where it stands by itself or before a colon or slash.
fn words(line: &str, word: &str, by: &str) -> String {
    let part = |c: char| c.is_ascii_alphanumeric() || "_$".contains(c);
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(word) {
        let (before, after) = (&rest[..at], &rest[at + word.len()..]);
        let alone = !before.ends_with(part) && !after.starts_with(part);
        out.push_str(before);
        out.push_str(if alone { by } else { word });
        rest = after;
    }
    out + rest
}
