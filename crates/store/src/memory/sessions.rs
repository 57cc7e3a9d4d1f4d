//! Sessions and their logs in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::session::{
    LogEnd, Session, SessionEvent, SessionFace, SessionFilter, SessionState, Stream, Turn,
};
use woodfrog_types::{SandboxId, SessionId, Timestamp, WorkspaceId};

use super::{MemoryStore, State, cut_page};
use crate::cursor::{self, List};
use crate::{Result, SessionAppend, SessionSlice, SessionStore, StoreError};

const WHAT: &str = "session";

/// A session with all that is its.
#[derive(Debug)]
pub(super) struct Kept {
    record: Session,
    end: LogEnd,
    events: BTreeMap<(Stream, u64), SessionEvent>,
    turns: BTreeMap<u64, Turn>,
}

#[async_trait]
impl SessionStore for MemoryStore {
    async fn session_insert(&self, session: &Session) -> Result<()> {
        let mut state = self.lock();
        if session.generation != 1 {
            return Err(StoreError::Conflict { what: WHAT });
        }
        if state.sessions.contains_key(&session.id) {
            return Err(StoreError::Constraint { what: WHAT });
        }
        check_name(&state, session)?;
        let kept = Kept {
            record: session.clone(),
            end: LogEnd {
                log_first: 1,
                universal_first: 1,
                ..LogEnd::default()
            },
            events: BTreeMap::new(),
            turns: BTreeMap::new(),
        };
        state.sessions.insert(session.id.clone(), kept);
        super::billing::note_session(&mut state, None, session);
        Ok(())
    }

    async fn session_update(&self, session: &Session) -> Result<()> {
        let mut state = self.lock();
        check_update(&state, session)?;
        let old = std::mem::replace(&mut state.session(&session.id)?.record, session.clone());
        super::billing::note_session(&mut state, Some(&old), session);
        Ok(())
    }

    async fn session_fetch(&self, id: &SessionId) -> Result<Option<Session>> {
        let state = self.lock();
        Ok(state.sessions.get(id).map(|kept| kept.record.clone()))
    }

    async fn session_by_name(
        &self,
        sandbox: &SandboxId,
        face: SessionFace,
        name: &str,
    ) -> Result<Option<Session>> {
        Ok(holder(&self.lock(), sandbox, face, name).cloned())
    }

    async fn session_list(
        &self,
        workspace: &WorkspaceId,
        filter: &SessionFilter,
        page: &PageRequest,
    ) -> Result<Page<Session>> {
        let before = page.cursor.as_deref();
        let before = before.map(|cursor| cursor::decode_time(List::Sessions, cursor));
        let before = before.transpose()?;
        let state = self.lock();
        let all = state.sessions.values().map(|kept| &kept.record);
        let mut found: Vec<&Session> = all
            .filter(|session| session.workspace == *workspace && matches(session, filter))
            .filter(|session| {
                let before = before.as_ref();
                before.is_none_or(|before| sort_key(session) < *before)
            })
            .collect();
        found.sort_by_key(|session| std::cmp::Reverse(sort_key(session)));
        let limit = cursor::page_items(page);
        Ok(cut_page(found.into_iter().cloned(), limit, |last| {
            let (at, id) = sort_key(last);
            cursor::encode(List::Sessions, &at.to_string(), &id)
        }))
    }

    async fn session_claim(&self, id: &SessionId) -> Result<(Session, LogEnd)> {
        let mut state = self.lock();
        let kept = state.session(id)?;
        kept.end.epoch += 1;
        Ok((kept.record.clone(), kept.end))
    }

    async fn session_append(&self, append: SessionAppend) -> Result<LogEnd> {
        let mut state = self.lock();
        if state.session(&append.session)?.end.epoch != append.epoch {
            return Err(StoreError::Conflict { what: WHAT });
        }
        if let Some(record) = &append.record {
            if record.id != append.session {
                return Err(StoreError::Conflict { what: WHAT });
            }
            check_update(&state, record)?;
            let old = state.session(&append.session)?.record.clone();
            super::billing::note_session(&mut state, Some(&old), record);
        }
        Ok(state.session(&append.session)?.append(append))
    }

    async fn session_read(
        &self,
        id: &SessionId,
        stream: Stream,
        after: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<SessionSlice> {
        let mut state = self.lock();
        let kept = state.session(id)?;
        let mut events = Vec::new();
        let mut left = bytes;
        for event in kept.stream(stream).filter(|event| event.sequence > after) {
            let size = event.event.payload.len() + event.event.wire.as_ref().map_or(0, String::len);
            if events.len() == limit || (!events.is_empty() && size > left) {
                break;
            }
            left = left.saturating_sub(size);
            events.push(event.clone());
        }
        let end = kept.end;
        Ok(SessionSlice { end, events })
    }

    async fn session_read_back(
        &self,
        id: &SessionId,
        stream: Stream,
        upto: u64,
        limit: usize,
    ) -> Result<SessionSlice> {
        let mut state = self.lock();
        let kept = state.session(id)?;
        let events = kept.stream(stream).rev();
        let events = events.filter(|event| event.sequence <= upto).take(limit);
        Ok(SessionSlice {
            end: kept.end,
            events: events.cloned().collect(),
        })
    }

    async fn session_trim(&self, id: &SessionId, stream: Stream, before: u64) -> Result<LogEnd> {
        let mut state = self.lock();
        let kept = state.session(id)?;
        let (last, first) = match stream {
            Stream::Log => (kept.end.log, &mut kept.end.log_first),
            Stream::Universal => (kept.end.universal, &mut kept.end.universal_first),
        };
        *first = before.clamp(*first, last + 1);
        let first = *first;
        kept.events
            .retain(|(of, sequence), _| *of != stream || *sequence >= first);
        Ok(kept.end)
    }

    async fn session_turns(&self, id: &SessionId, after: u64, limit: usize) -> Result<Vec<Turn>> {
        let state = self.lock();
        let turns = state.sessions.get(id).into_iter();
        let turns = turns.flat_map(|kept| kept.turns.values());
        let turns = turns.filter(|turn| turn.number > after).take(limit);
        Ok(turns.cloned().collect())
    }

    async fn session_remove(&self, id: &SessionId) -> Result<bool> {
        Ok(self.lock().sessions.remove(id).is_some())
    }

    async fn session_scan(
        &self,
        after: Option<&SessionId>,
        limit: usize,
    ) -> Result<Vec<SessionId>> {
        let state = self.lock();
        let all = state.sessions.keys();
        let mut ids: Vec<_> = all
            .filter(|id| after.is_none_or(|after| id.as_str() > after.as_str()))
            .cloned()
            .collect();
        ids.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        ids.truncate(limit);
        Ok(ids)
    }

    async fn session_ended(&self, before: Timestamp, limit: usize) -> Result<Vec<SessionId>> {
        let state = self.lock();
        let all = state.sessions.values().map(|kept| &kept.record);
        let mut ended: Vec<_> = all
            .filter_map(|session| match &session.state {
                SessionState::Ended { at, .. } if *at < before => Some((*at, session.id.clone())),
                _ => None,
            })
            .collect();
        ended.sort();
        Ok(ended.into_iter().map(|(_, id)| id).take(limit).collect())
    }
}

impl State {
    fn session(&mut self, id: &SessionId) -> Result<&mut Kept> {
        let kept = self.sessions.get_mut(id);
        kept.ok_or(StoreError::NotFound { what: WHAT })
    }
}

impl Kept {
    /// The entries of one stream, oldest first.
    fn stream(&self, stream: Stream) -> impl DoubleEndedIterator<Item = &SessionEvent> {
        let range = self.events.range((stream, 0)..=(stream, u64::MAX));
        range.map(|(_, event)| event)
    }

    /// Appends what was checked before.
    fn append(&mut self, append: SessionAppend) -> LogEnd {
        for event in append.events {
            let stream = event.stream;
            let last = match stream {
                Stream::Log => &mut self.end.log,
                Stream::Universal => &mut self.end.universal,
            };
            *last += 1;
            let event = SessionEvent {
                session: append.session.clone(),
                sequence: *last,
                event,
            };
            self.events.insert((stream, *last), event);
        }
        if let Some(position) = append.position {
            self.end.position = position;
        }
        if let Some(record) = append.record {
            self.record = record;
        }
        for turn in append.turns {
            self.turns.insert(turn.number, turn);
        }
        self.end
    }
}

fn holder<'a>(
    state: &'a State,
    sandbox: &SandboxId,
    face: SessionFace,
    name: &str,
) -> Option<&'a Session> {
    let mut all = state.sessions.values().map(|kept| &kept.record);
    all.find(|session| {
        session.holds_name
            && session.sandbox == *sandbox
            && session.face == face
            && session.name == name
    })
}

fn check_name(state: &State, session: &Session) -> Result<()> {
    match holder(state, &session.sandbox, session.face, &session.name) {
        Some(other) if session.holds_name && other.id != session.id => {
            Err(StoreError::Constraint { what: WHAT })
        }
        _ => Ok(()),
    }
}

fn check_update(state: &State, session: &Session) -> Result<()> {
    let stored = state.sessions.get(&session.id);
    let stored = stored.ok_or(StoreError::NotFound { what: WHAT })?;
    if stored.record.generation + 1 != session.generation {
        return Err(StoreError::Conflict { what: WHAT });
    }
    check_name(state, session)
}

fn sort_key(session: &Session) -> (i64, String) {
    let at = session.created_at.as_millis();
    (at, session.id.as_str().to_owned())
}

fn matches(session: &Session, filter: &SessionFilter) -> bool {
    let SessionFilter {
        sandbox,
        face,
        agent,
        active,
    } = filter;
    let is_active = session.state == SessionState::Active;
    sandbox.as_ref().is_none_or(|one| session.sandbox == *one)
        && face.is_none_or(|face| session.face == face)
        && agent.as_ref().is_none_or(|agent| session.agent == *agent)
        && active.is_none_or(|active| is_active == active)
}
