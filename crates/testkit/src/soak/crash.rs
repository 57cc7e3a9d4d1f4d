//! Crashes, and the comparison with the model.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::model::Model;
use super::{MEMORY, Soak};
use crate::api::Api;

impl Soak<'_> {
    /// The server is killed at some moment of an operation; either it was done or it was not.
    pub(super) fn crash_during(&mut self, what: &'static str) -> Result<()> {
        let number = self.random.below(self.model.boxes.len());
        let id = self.model.boxes[number].id.clone();
        let url = self.server.url().to_owned();
        let wait = Duration::from_micros(self.random.below(60_000) as u64);
        let worker = std::thread::spawn(move || {
            // Whatever comes of it: the connection breaks at some point.
            let mut api = Api::connect(&url)?;
            match what {
                "create" => api.create(MEMORY).map(drop),
                "delete" => api.delete(&id),
                other => api.act(&id, other).map(drop),
            }
        });
        std::thread::park_timeout(wait);
        self.server.kill()?;
        let _ = worker.join();
        self.recover()?;
        match what {
            "delete" => {
                let listed = self.listed("/sandboxes")?;
                if !listed.contains(&self.model.boxes[number].id) {
                    self.model.boxes.swap_remove(number);
                }
            }
            "create" => self.drop_unknown("/sandboxes", |model| model.box_ids())?,
            "checkpoint" => {
                // One that slept may sleep in what was taken, which then cannot be removed.
                self.check(number)?;
                self.drop_unknown("/snapshots", |model| model.taken_ids())?;
            }
            _ => self.check(number)?,
        }
        self.done("crash during something");
        Ok(())
    }

    /// Removes what an interrupted request made without anybody hearing of it.
    fn drop_unknown(&mut self, path: &str, known: fn(&Model) -> Vec<String>) -> Result<()> {
        let known = known(&self.model);
        for id in self.listed(path)? {
            if !known.contains(&id) {
                self.api.must("DELETE", &format!("{path}/{id}"), None)?;
            }
        }
        Ok(())
    }

    pub(super) fn recover(&mut self) -> Result<()> {
        self.server.restart()?;
        self.api = Api::connect(self.server.url())?;
        Ok(())
    }

    /// The server has exactly the model's sandboxes and snapshots, and all of them are whole; how
    /// many they are.
    pub(super) fn inventory(&mut self) -> Result<(usize, usize)> {
        let sorted = |mut ids: Vec<String>| {
            ids.sort();
            ids
        };
        let boxes = sorted(self.listed("/sandboxes")?);
        let taken = sorted(self.listed("/snapshots")?);
        ensure!(
            boxes == sorted(self.model.box_ids()),
            "sandboxes: {boxes:?}"
        );
        ensure!(
            taken == sorted(self.model.taken_ids()),
            "snapshots: {taken:?}"
        );
        for number in 0..self.model.boxes.len() {
            self.check(number)?;
        }
        for id in &taken {
            let path = format!("/snapshots/{id}/verify");
            let verified = self.api.must("POST", &path, None)?;
            ensure!(verified["state"].as_str() == Some("ready"), "{verified}");
        }
        Ok((boxes.len(), taken.len()))
    }
}
