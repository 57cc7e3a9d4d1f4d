//! Random operations on a server, killed now and then, against a model of what must be there.
//!
//! Every sandbox holds memory whose hash is known and files whose content is known; both are
//! checked after each sleep, copy and crash. At the end the server has exactly what the model has,
//! and after all is deleted the machine has what it had before.

mod crash;
mod model;
mod random;
mod rounds;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::api::{Api, Refused};
use crate::{Leftovers, Server, wait_for};
use model::{Known, Model, Taken};
pub use random::Random;
pub use rounds::{Rounds, Turned, rounds};

/// Memory of each sandbox.
const MEMORY: u64 = 256 << 20;
/// Of which this much is filled.
const HELD_MIB: usize = 4;
/// Sandboxes at once.
const BOXES_MAX: usize = 8;
/// Snapshots at once.
const SNAPSHOTS_MAX: usize = 6;
/// How long a removal may go on behind its answer.
const SETTLE: Duration = Duration::from_secs(60);

/// Between two words about how far it is.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// When it is enough.
#[derive(Debug, Clone, Copy)]
pub enum Length {
    Time(Duration),
    /// The same operations on every machine, however slow.
    Operations(u64),
}

/// How long, and which sequence.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub length: Length,
    pub seed: u64,
    /// Is told how far it is.
    pub say: fn(&str),
}

/// What was done.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Operation → how often it was done, and how often refused.
    pub operations: BTreeMap<&'static str, (u64, u64)>,
    /// Refusals that were met, and how often.
    pub refusals: BTreeMap<String, u64>,
    /// Sandboxes and snapshots at the end: exactly those of the model, and all of them whole.
    pub inventory: (usize, usize),
    pub seed: u64,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (boxes, taken) = self.inventory;
        writeln!(
            f,
            "Seed {}; at the end exactly the {boxes} sandboxes and {taken} snapshots of the model, \
             all of them whole; after their removal the machine as before.\n",
            self.seed
        )?;
        writeln!(f, "| operation | done | refused |\n|---|---|---|")?;
        for (name, (done, refused)) in &self.operations {
            writeln!(f, "| {name} | {done} | {refused} |")?;
        }
        for (refusal, count) in &self.refusals {
            writeln!(f, "refused {count} times: {refusal}")?;
        }
        Ok(())
    }
}

/// Runs it on a server that was started with `--dev` and has no sandboxes.
///
/// # Errors
/// The server lost, kept or changed something, or answered what it must not.
pub fn run(server: &mut Server, plan: Plan) -> Result<Outcome> {
    let before = left(server.data_dir());
    let mut soak = Soak {
        api: Api::connect(server.url())?,
        random: Random::new(plan.seed),
        model: Model::default(),
        outcome: Outcome::default(),
        step: 0,
        server,
    };
    let (began, seed) = (Instant::now(), plan.seed);
    (plan.say)(&format!("seed {seed}"));
    let mut said = began;
    while goes_on(plan.length, soak.step, began) {
        soak.step += 1;
        let operation = soak.choose();
        let step = soak.step;
        soak.perform(operation)
            .with_context(|| format!("{operation:?}, step {step} of seed {seed}"))?;
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            (plan.say)(&soak.progress(began));
        }
    }
    (plan.say)(&soak.progress(began));
    let found = soak.inventory();
    soak.outcome.inventory =
        found.with_context(|| format!("the inventory at the end of seed {seed}"))?;
    soak.outcome.seed = seed;
    let outcome = soak.clear()?;
    as_before(server.data_dir(), &before)?;
    Ok(outcome)
}

fn goes_on(length: Length, done: u64, began: Instant) -> bool {
    match length {
        Length::Time(time) => began.elapsed() < time,
        Length::Operations(count) => done < count,
    }
}

/// Waits until the pool has what it had, and the machine no more than that.
fn as_before(data_dir: &Path, before: &(Leftovers, usize)) -> Result<()> {
    let same = wait_for("the machine to be as before", SETTLE, || {
        let (things, snapshots) = left(data_dir);
        (things.is_within(&before.0) && snapshots == before.1).then_some(())
    });
    let after = left(data_dir);
    same.with_context(|| format!("before {before:?}, after {after:?}"))
}

/// What the machine and the pool have.
fn left(data_dir: &Path) -> (Leftovers, usize) {
    let snapshots = std::fs::read_dir(data_dir.join("pool/snapshots"));
    let snapshots = snapshots.map_or(0, Iterator::count);
    (Leftovers::count(data_dir), snapshots)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Create,
    CreateFromSnapshot,
    Write,
    Check,
    Pause,
    Hibernate,
    Resume,
    Checkpoint,
    Fork,
    Delete,
    DeleteSnapshot,
    Crash,
    CrashDuring(&'static str),
}

/// Operations that have a crash in the middle, now and then.
const INTERRUPTED: &[&str] = &[
    "pause",
    "hibernate",
    "resume",
    "checkpoint",
    "create",
    "delete",
];

struct Soak<'a> {
    server: &'a mut Server,
    api: Api,
    random: Random,
    model: Model,
    outcome: Outcome,
    step: u64,
}

impl Soak<'_> {
    fn progress(&self, began: Instant) -> String {
        let crashes = ["crash", "crash during something"];
        let crashes = crashes.map(|name| self.outcome.operations.get(name).map_or(0, |n| n.0));
        format!(
            "{} s: {} operations, {} of them crashes; {} sandboxes, {} snapshots",
            began.elapsed().as_secs(),
            self.step,
            crashes.iter().sum::<u64>(),
            self.model.boxes.len(),
            self.model.taken.len(),
        )
    }

    fn choose(&mut self) -> Operation {
        use Operation as O;
        if self.model.boxes.is_empty() {
            return O::Create;
        }
        let interrupted = INTERRUPTED[self.random.below(INTERRUPTED.len())];
        let weighted = [
            (O::Create, 3),
            (O::CreateFromSnapshot, 3),
            (O::Write, 8),
            (O::Check, 6),
            (O::Pause, 5),
            (O::Hibernate, 6),
            (O::Resume, 3),
            (O::Checkpoint, 3),
            (O::Fork, 2),
            (O::Delete, 3),
            (O::DeleteSnapshot, 2),
            (O::Crash, 1),
            (O::CrashDuring(interrupted), 2),
        ];
        let fits = |operation: &O| match operation {
            O::Create | O::CreateFromSnapshot | O::Fork => {
                let room = self.model.boxes.len() < BOXES_MAX;
                room && (*operation != O::CreateFromSnapshot || !self.model.taken.is_empty())
            }
            O::Checkpoint => self.model.taken.len() < SNAPSHOTS_MAX,
            O::DeleteSnapshot => !self.model.taken.is_empty(),
            _ => true,
        };
        let allowed: Vec<_> = weighted.into_iter().filter(|(o, _)| fits(o)).collect();
        let total: usize = allowed.iter().map(|(_, weight)| weight).sum();
        let mut at = self.random.below(total);
        for (operation, weight) in allowed {
            if at < weight {
                return operation;
            }
            at -= weight;
        }
        O::Check
    }

    fn perform(&mut self, operation: Operation) -> Result<()> {
        match operation {
            Operation::Create => self.create(),
            Operation::CreateFromSnapshot => self.create_from_snapshot(),
            Operation::Write => self.write(),
            Operation::Check => {
                let number = self.random.below(self.model.boxes.len());
                self.check(number)?;
                self.done("check");
                Ok(())
            }
            Operation::Pause => self.act("pause", "paused"),
            Operation::Hibernate => self.act("hibernate", "hibernated"),
            Operation::Resume => self.act("resume", "running"),
            Operation::Checkpoint => self.checkpoint(),
            Operation::Fork => self.fork(),
            Operation::Delete => self.delete(),
            Operation::DeleteSnapshot => self.delete_snapshot(),
            Operation::Crash => {
                self.server.kill()?;
                self.recover()?;
                self.done("crash");
                Ok(())
            }
            Operation::CrashDuring(what) => self.crash_during(what),
        }
    }

    fn done(&mut self, name: &'static str) {
        self.outcome.operations.entry(name).or_default().0 += 1;
    }

    /// A refusal that is no fault of the server is counted.
    fn refused(&mut self, name: &'static str, refused: Refused) -> Result<()> {
        ensure!(refused.status < 500, "{refused}");
        self.outcome.operations.entry(name).or_default().1 += 1;
        *self
            .outcome
            .refusals
            .entry(refused.to_string())
            .or_default() += 1;
        Ok(())
    }

    fn create(&mut self) -> Result<()> {
        let id = self.api.create(MEMORY)?;
        self.api.hold_memory(&id, HELD_MIB)?;
        let memory = self.api.memory_hash(&id)?;
        self.model.boxes.push(Known::new(id, memory));
        self.done("create");
        Ok(())
    }

    fn create_from_snapshot(&mut self) -> Result<()> {
        let taken = self.random.of(&self.model.taken).clone();
        let body = json!({ "template": taken.id, "resources": { "memory_bytes": MEMORY } });
        match self.api.call("POST", "/sandboxes", Some(&body))? {
            Ok(made) => {
                let id = made["id"].as_str().context("id")?.to_owned();
                self.model.boxes.push(Known {
                    id,
                    ..taken.content
                });
                self.done("create from snapshot");
                self.check(self.model.boxes.len() - 1)
            }
            Err(refused) => self.refused("create from snapshot", refused),
        }
    }

    fn write(&mut self) -> Result<()> {
        let known = self.random.of_mut(&mut self.model.boxes);
        let name = format!("file{}", self.step % 5);
        let line = format!("echo {} > /home/user/{name}", self.step);
        self.api.shell(&known.id, &line)?;
        known.files.insert(name, self.step);
        self.done("write");
        Ok(())
    }

    /// Its files and its memory are what they must be. Wakes it.
    fn check(&mut self, number: usize) -> Result<()> {
        let known = &self.model.boxes[number];
        let line = "cd /home/user; for f in file*; do [ -e $f ] && echo $f=$(cat $f); done; true";
        let found = self.api.shell(&known.id, line)?;
        let expected = known.listing();
        ensure!(
            found == expected,
            "files of {}: {found:?} instead of {expected:?}",
            known.id
        );
        let memory = self.api.memory_hash(&known.id)?;
        ensure!(
            memory == known.memory,
            "memory of {}: {memory:?} instead of {:?}",
            known.id,
            known.memory
        );
        Ok(())
    }

    fn act(&mut self, what: &'static str, state: &str) -> Result<()> {
        let id = self.random.of(&self.model.boxes).id.clone();
        let before = self.api.state(&id)?;
        let path = format!("/sandboxes/{id}/{what}");
        match self.api.call("POST", &path, None)? {
            Ok(_) => {
                let found = self.api.state(&id)?;
                // What sleeps more deeply already stays as it is.
                let deeper = what == "pause" && before == "hibernated" && found == before;
                ensure!(found == state || deeper, "{id} is {found} after {what}");
                self.done(what);
                Ok(())
            }
            Err(refused) => {
                let found = self.api.state(&id)?;
                ensure!(
                    found == before,
                    "{id} was {before} and is {found}: {refused}"
                );
                self.refused(what, refused)
            }
        }
    }

    fn checkpoint(&mut self) -> Result<()> {
        let known = self.random.of(&self.model.boxes).clone();
        let path = format!("/sandboxes/{}/checkpoint", known.id);
        let body = json!({ "name": format!("soak-{}", self.step) });
        match self.api.call("POST", &path, Some(&body))? {
            Ok(snapshot) => {
                let id = snapshot["id"].as_str().context("id")?.to_owned();
                self.model.taken.push(Taken { id, content: known });
                self.done("checkpoint");
                Ok(())
            }
            Err(refused) => self.refused("checkpoint", refused),
        }
    }

    fn fork(&mut self) -> Result<()> {
        let known = self.random.of(&self.model.boxes).clone();
        let path = format!("/sandboxes/{}/fork", known.id);
        let answer = match self.api.call("POST", &path, Some(&json!({ "count": 2 })))? {
            Ok(answer) => answer,
            Err(refused) => return self.refused("fork", refused),
        };
        for item in answer["items"].as_array().context("items")? {
            let Some(id) = item["sandbox"]["id"].as_str() else {
                bail!("a copy of {}: {}", known.id, item["error"]);
            };
            let copy = Known {
                id: id.to_owned(),
                ..known.clone()
            };
            self.model.boxes.push(copy);
            self.check(self.model.boxes.len() - 1)?;
        }
        self.done("fork");
        Ok(())
    }

    fn delete(&mut self) -> Result<()> {
        let number = self.random.below(self.model.boxes.len());
        let known = self.model.boxes.swap_remove(number);
        self.api.delete(&known.id)?;
        self.done("delete");
        Ok(())
    }

    fn delete_snapshot(&mut self) -> Result<()> {
        let number = self.random.below(self.model.taken.len());
        let path = format!("/snapshots/{}", self.model.taken[number].id);
        match self.api.call("DELETE", &path, None)? {
            Ok(_) => {
                self.model.taken.swap_remove(number);
                self.done("delete snapshot");
                Ok(())
            }
            // A sandbox sleeps in it: it was hibernated when it was taken.
            Err(refused) if refused.code == "conflict" => self.refused("delete snapshot", refused),
            Err(refused) => bail!("DELETE {path}: {refused}"),
        }
    }

    fn listed(&mut self, path: &str) -> Result<Vec<String>> {
        let page = self.api.must("GET", &format!("{path}?limit=100"), None)?;
        let items = page["items"].as_array().context("items")?;
        let ids = items.iter().filter_map(|item| item["id"].as_str());
        Ok(ids.map(str::to_owned).collect())
    }

    fn clear(mut self) -> Result<Outcome> {
        for id in self.model.box_ids() {
            self.api.delete(&id)?;
        }
        for id in self.model.taken_ids() {
            self.api.must("DELETE", &format!("/snapshots/{id}"), None)?;
        }
        Ok(self.outcome)
    }
}
