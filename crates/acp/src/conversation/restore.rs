//! Taking conversations up in a process that does not know them.

use serde_json::{Map, json};
use woodfrog_types::session::Binding;

use super::build::Build;
use super::{About, Act, Choice, Conversation, Step, Timestamp, Value, kind};
use crate::message::Envelope;

/// Choices that are remembered of one conversation.
const CHOICES_MAX: usize = 64;

impl Conversation {
    /// What the log has of a conversation, in the words of [`crate::history`]; asked for with
    /// [`Act::Remember`].
    pub fn remembered(&mut self, conversation: &str, text: Option<String>, now: Timestamp) -> Step {
        self.remembering = false;
        self.told.insert(conversation.to_owned(), text);
        let mut build = self.build(now);
        build.flush();
        build.done()
    }

    pub(super) fn binding(&mut self, public: &str) -> Option<&mut Binding> {
        let mut bindings = self.record.bindings.iter_mut();
        bindings.find(|it| it.public == public)
    }
}

impl Build<'_> {
    /// Says `initialize` to a process that a client believes to know.
    pub(super) fn introduce(&mut self) {
        if self.it.initializing {
            return;
        }
        self.it.initializing = true;
        let params = self.it.record.handshake.as_deref().map(read);
        let params = params.unwrap_or_else(|| json!({"protocolVersion": 1}));
        self.ask_agent("initialize", params, About::Initialize { ours: true });
    }

    /// Whether the agent knows the conversation, and whatever a prompt must carry is there; begins
    /// to see to it if not.
    pub(super) fn is_at_hand(&mut self, conversation: &str, prompt: bool) -> bool {
        let incarnation = self.it.incarnation();
        let Some(binding) = self.it.binding(conversation).map(|it| it.clone()) else {
            // The agent will say what it thinks of it.
            return true;
        };
        if binding.incarnation != incarnation {
            self.take_up(&binding);
            return false;
        }
        let Some(upto) = binding.replay_due else {
            return true;
        };
        if !prompt || self.it.told.contains_key(conversation) {
            return true;
        }
        if !self.it.remembering {
            self.it.remembering = true;
            self.act(Act::Remember {
                conversation: conversation.to_owned(),
                upto,
            });
        }
        false
    }

    fn take_up(&mut self, binding: &Binding) {
        if self.it.restoring.is_some() {
            return;
        }
        self.it.restoring = Some(binding.public.clone());
        let capabilities = self.it.capabilities();
        let loads = capabilities
            .and_then(|it| it.get("loadSession").and_then(Value::as_bool))
            .unwrap_or(false);
        if loads && binding.incarnation > 0 {
            self.reload(binding);
        } else {
            self.remake(binding);
        }
    }

    fn reload(&mut self, binding: &Binding) {
        let mut params = match read(&binding.init) {
            Value::Object(params) => params,
            _ => Map::new(),
        };
        params.insert("sessionId".to_owned(), Value::from(binding.agent.as_str()));
        let about = About::Reload {
            conversation: binding.public.clone(),
        };
        self.ask_agent("session/load", Value::Object(params), about);
    }

    fn remake(&mut self, binding: &Binding) {
        let mut params = read(&binding.init);
        if let Value::Object(params) = &mut params {
            params.remove("sessionId");
        }
        let about = About::Remake {
            conversation: binding.public.clone(),
        };
        self.ask_agent("session/new", params, about);
    }

    /// The agent's answer to `session/load`.
    pub(super) fn reloaded(&mut self, conversation: &str, answer: &Envelope) {
        let incarnation = self.it.incarnation();
        if answer.error().is_some() {
            // It has forgotten after all.
            match self.it.binding(conversation).map(|it| it.clone()) {
                Some(binding) => self.remake(&binding),
                None => self.it.restoring = None,
            }
            return;
        }
        if let Some(binding) = self.it.binding(conversation) {
            binding.incarnation = incarnation;
            binding.replay_due = None;
        }
        self.taken_up(conversation, "load");
    }

    /// The agent's answer to `session/new`, asked so that a conversation goes on.
    pub(super) fn remade(&mut self, conversation: &str, answer: &Envelope) {
        let incarnation = self.it.incarnation();
        let id = answer
            .ok()
            .and_then(|result| result.get("sessionId"))
            .and_then(Value::as_str);
        let Some(id) = id.map(str::to_owned) else {
            self.not_taken_up(conversation, answer);
            return;
        };
        let end = self.it.end.log;
        let mut first = false;
        if let Some(binding) = self.it.binding(conversation) {
            first = binding.incarnation == 0;
            binding.agent = id;
            binding.incarnation = incarnation;
            binding.replay_due = (!first).then_some(end);
        }
        self.it.told.remove(conversation);
        if !first {
            self.choose_again(conversation);
        }
        if first {
            self.it.restoring = None;
            self.changed();
        } else {
            self.taken_up(conversation, "replay");
        }
    }

    /// An agent accepted what a client chose.
    pub(super) fn chosen(&mut self, conversation: &str, choice: Choice) {
        let Some(binding) = self.it.binding(conversation) else {
            return;
        };
        binding.chosen.retain(|it| subject(it) != subject(&choice));
        if binding.chosen.len() < CHOICES_MAX {
            binding.chosen.push(choice);
            self.changed();
        }
    }

    /// A conversation that took the place of another is asked for what was chosen for that one.
    fn choose_again(&mut self, conversation: &str) {
        let Some(binding) = self.it.binding(conversation).map(|it| it.clone()) else {
            return;
        };
        for choice in binding.chosen {
            let mut params = read(&choice.params);
            if let Value::Object(params) = &mut params {
                let id = Value::from(binding.agent.as_str());
                params.insert("sessionId".to_owned(), id);
            }
            self.ask_agent(&choice.method, params, About::Rechoose);
        }
    }

    fn taken_up(&mut self, conversation: &str, how: &str) {
        self.it.restoring = None;
        self.changed();
        self.mark(
            kind::RESTORED,
            &json!({"conversation": conversation, "how": how}),
        );
    }

    /// Whoever waits for that conversation is told what the agent said.
    fn not_taken_up(&mut self, conversation: &str, answer: &Envelope) {
        self.it.restoring = None;
        let (gone, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.it.held)
            .into_iter()
            .partition(|held| held.envelope.session() == Some(conversation));
        self.it.held = rest.into();
        for held in gone {
            self.refuse(held, answer);
        }
    }

    /// What a conversation must be reminded of with its next prompt.
    pub(super) fn history_of(&mut self, conversation: &str) -> Option<String> {
        let told = self.it.told.remove(conversation)?;
        // With the prompt or not at all: both are written in one transaction.
        if let Some(binding) = self.it.binding(conversation) {
            binding.replay_due = None;
            self.changed();
        }
        told
    }
}

/// What a choice is about: the last one counts.
fn subject(choice: &Choice) -> (&str, Option<String>) {
    let option = read(&choice.params)
        .get("configId")
        .and_then(Value::as_str)
        .map(str::to_owned);
    (&choice.method, option)
}

fn read(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| json!({}))
}
