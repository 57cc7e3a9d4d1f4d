//! What a session remembers and how it is set.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::message::Refusal;

/// Prompts whose text is remembered; the count goes on.
const REMEMBERED_MAX: usize = 256;
/// Bytes of one prompt that are remembered.
const PROMPT_MAX: usize = 64 << 10;

/// A setting: its id and category, its name, and its values with their names. The first is the
/// default.
struct Setting {
    id: &'static str,
    name: &'static str,
    values: &'static [(&'static str, &'static str)],
}

const SETTINGS: [Setting; 3] = [
    Setting {
        id: "model",
        name: "Model",
        values: &[("mock", "Mock"), ("mock-fast", "Mock Fast")],
    },
    Setting {
        id: "mode",
        name: "Mode",
        values: &[("normal", "Normal"), ("plan", "Plan")],
    },
    Setting {
        id: "thought_level",
        name: "Thought level",
        values: &[("low", "Low"), ("medium", "Medium"), ("high", "High")],
    },
];

const MODEL: usize = 0;
const MODE: usize = 1;

#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) cwd: PathBuf,
    /// The value of each setting, as its place in the list.
    chosen: [usize; SETTINGS.len()],
    /// Prompts so far, and the text of the newest.
    pub(crate) count: u64,
    remembered: Vec<String>,
    /// Titles that were allowed for good.
    pub(crate) allowed: BTreeSet<String>,
}

impl Session {
    pub(crate) fn new(id: String, cwd: PathBuf) -> Self {
        Self {
            id,
            cwd,
            chosen: [0; SETTINGS.len()],
            count: 0,
            remembered: Vec::new(),
            allowed: BTreeSet::new(),
        }
    }

    pub(crate) fn remember(&mut self, prompt: &str) {
        self.count += 1;
        if self.remembered.len() == REMEMBERED_MAX {
            self.remembered.remove(0);
        }
        self.remembered.push(clip(prompt, PROMPT_MAX).to_owned());
    }

    /// The newest prompt but `skip`.
    pub(crate) fn prompt(&self, skip: usize) -> Option<&str> {
        self.remembered.iter().rev().nth(skip).map(String::as_str)
    }

    /// `modes`, `models` and `configOptions` of an answer.
    pub(crate) fn describe(&self) -> Value {
        let named = |index: usize, key: &str| -> Vec<Value> {
            let values = SETTINGS.get(index).map_or(&[][..], |s| s.values);
            values
                .iter()
                .map(|(id, name)| json!({key: id, "name": name}))
                .collect()
        };
        json!({
            "modes": {"currentModeId": self.value(MODE), "availableModes": named(MODE, "id")},
            "models": {
                "currentModelId": self.value(MODEL),
                "availableModels": named(MODEL, "modelId"),
            },
            "configOptions": self.config_options(),
        })
    }

    pub(crate) fn config_options(&self) -> Value {
        let options = SETTINGS.iter().enumerate().map(|(index, setting)| {
            let values: Vec<Value> = setting
                .values
                .iter()
                .map(|(value, name)| json!({"value": value, "name": name}))
                .collect();
            json!({
                "id": setting.id,
                "name": setting.name,
                "category": setting.id,
                "type": "select",
                "currentValue": self.value(index),
                "options": values,
            })
        });
        options.collect()
    }

    /// Sets `id` to `value`.
    pub(crate) fn set(&mut self, id: &str, value: &str) -> Result<(), Refusal> {
        let found = SETTINGS
            .iter()
            .zip(&mut self.chosen)
            .find(|(s, _)| s.id == id);
        let (setting, chosen) =
            found.ok_or_else(|| Refusal::params(format!("there is no option `{id}`")))?;
        let place = setting.values.iter().position(|(v, _)| *v == value);
        *chosen = place.ok_or_else(|| Refusal::params(format!("`{id}` has no value `{value}`")))?;
        Ok(())
    }

    /// `model mock, mode normal, thought_level low`
    pub(crate) fn settings(&self) -> String {
        let each: Vec<String> = SETTINGS
            .iter()
            .enumerate()
            .map(|(index, setting)| format!("{} {}", setting.id, self.value(index)))
            .collect();
        each.join(", ")
    }

    fn value(&self, index: usize) -> &'static str {
        let chosen = self.chosen.get(index).copied().unwrap_or_default();
        let value = SETTINGS.get(index).and_then(|s| s.values.get(chosen));
        value.map_or("", |(value, _)| value)
    }
}

/// At most `max` bytes of a text, whole characters.
pub(crate) fn clip(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}
