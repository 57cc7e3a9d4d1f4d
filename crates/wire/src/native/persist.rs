//! What clients persist of sessions of their own. Records come back as the text that was sent;
//! these shapes say what they must have.

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use utoipa::{IntoParams, ToSchema};
use woodfrog_types::Fault;

/// Bytes of an id.
pub const ID_BYTES_MAX: usize = 256;
/// Items of a page, if it is not said, and at most.
const PAGE_DEFAULT: usize = 100;
const PAGE_MAX: usize = 1000;
/// JavaScript's integers.
const SAFE_MAX: i64 = (1 << 53) - 1;

/// A session, as `sandbox-agent` persists it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "most fields are only checked")]
pub struct PersistedSession {
    pub id: String,
    agent: String,
    agent_session_id: String,
    last_connection_id: String,
    /// Milliseconds.
    pub created_at: i64,
    destroyed_at: Option<i64>,
    sandbox_id: Option<String>,
    #[schema(value_type = Option<Value>)]
    session_init: Option<IgnoredAny>,
    #[schema(value_type = Option<Value>)]
    config_options: Option<IgnoredAny>,
    #[schema(value_type = Option<Value>)]
    modes: Option<IgnoredAny>,
}

/// One event of a session, as `sandbox-agent` persists it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "most fields are only checked")]
pub struct PersistedEvent {
    pub id: String,
    /// From 1, unique in the session.
    pub event_index: i64,
    pub session_id: String,
    created_at: i64,
    connection_id: String,
    sender: Sender,
    #[schema(value_type = std::collections::BTreeMap<String, Value>)]
    payload: Object,
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sender {
    Client,
    Agent,
}

/// A JSON object, whatever is in it.
#[derive(Debug)]
struct Object;

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Object;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Object)
            }
        }
        deserializer.deserialize_map(Any)
    }
}

/// A page of sessions. Pass `nextCursor` as `cursor` for the following one.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "pages are put together from the stored texts")]
pub struct PersistedSessionPage {
    items: Vec<PersistedSession>,
    next_cursor: Option<String>,
}

/// A page of events. Pass `nextCursor` as `cursor` for the following one.
#[derive(Debug, ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "pages are put together from the stored texts")]
pub struct PersistedEventPage {
    items: Vec<PersistedEvent>,
    next_cursor: Option<String>,
}

/// Which page of sessions is wanted.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PersistQuery {
    /// `nextCursor` of the page before, or how many items to pass over; begins at the start if it
    /// is neither.
    pub cursor: Option<String>,
    /// 100 if absent or below 1; at most 1000. A page of large records has fewer.
    pub limit: Option<f64>,
}

/// Which events are wanted.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PersistEventQuery {
    /// As for sessions; not with `order=desc`.
    pub cursor: Option<String>,
    /// As for sessions; at most 8 with `order=desc`.
    pub limit: Option<f64>,
    /// `desc`: the last events, the last one first.
    pub order: Option<Order>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    Asc,
    Desc,
}

/// Where a cursor points to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Offset(u64),
    After { number: i64, id: String },
}

/// How many items a page shall have.
pub fn limit(asked: Option<f64>) -> usize {
    match asked {
        Some(asked) if asked >= 1.0 => asked.min(PAGE_MAX as f64) as usize,
        _ => PAGE_DEFAULT,
    }
}

/// What a cursor means: ours names the last item of a page, digits are an offset, anything else is
/// the start.
pub fn place(cursor: Option<&str>) -> Place {
    let cursor = cursor.unwrap_or_default();
    if let Some(rest) = cursor.strip_prefix("k1:")
        && let Some((number, id)) = rest.split_once(':')
        && let Some(number) = safe(number)
    {
        let id = id.to_owned();
        return Place::After { number, id };
    }
    let digits = cursor.bytes().all(|byte| byte.is_ascii_digit());
    Place::Offset(cursor.parse().ok().filter(|_| digits).unwrap_or(0))
}

/// The cursor after an item.
pub fn cursor(number: i64, id: &str) -> String {
    format!("k1:{number}:{id}")
}

fn safe(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| plain)?;
    (-SAFE_MAX..=SAFE_MAX).contains(&number).then_some(number)
}

/// Whether it can be an id.
pub fn check_id(field: &str, id: &str) -> Result<(), Fault> {
    let text = if !(1..=ID_BYTES_MAX).contains(&id.len()) {
        format!("{field} must have 1 to {ID_BYTES_MAX} bytes")
    } else if id == "." || id == ".." || id.contains('\0') {
        format!("{field} must not be `.` or `..`, nor have a null character")
    } else {
        return Ok(());
    };
    Err(Fault::invalid(field, text))
}

fn check_integer(field: &str, least: i64, value: i64) -> Result<(), Fault> {
    if (least..=SAFE_MAX).contains(&value) {
        return Ok(());
    }
    let text = format!("{field} must be an integer from {least} to {SAFE_MAX}");
    Err(Fault::invalid(field, text))
}

impl PersistedSession {
    /// Whether it can be what `id` names.
    pub fn check(&self, id: &str) -> Result<(), Fault> {
        check_id("id", &self.id)?;
        if self.id != id {
            return Err(Fault::invalid("id", "id is not that of the path"));
        }
        if let Some(at) = self.destroyed_at {
            check_integer("destroyedAt", -SAFE_MAX, at)?;
        }
        check_integer("createdAt", -SAFE_MAX, self.created_at)
    }
}

impl PersistedEvent {
    /// Whether it can be one of the session; its index.
    pub fn check(&self, session: &str) -> Result<u64, Fault> {
        check_id("id", &self.id)?;
        check_id("sessionId", &self.session_id)?;
        if self.session_id != session {
            let text = "sessionId is not that of the path";
            return Err(Fault::invalid("sessionId", text));
        }
        check_integer("createdAt", -SAFE_MAX, self.created_at)?;
        check_integer("eventIndex", 1, self.event_index)?;
        u64::try_from(self.event_index).map_err(Fault::internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_places_offsets_or_the_start() {
        let after = |number, id: &str| Place::After {
            number,
            id: id.to_owned(),
        };
        for (text, wanted) in [
            ("k1:5:a", after(5, "a")),
            ("k1:-5:k1:1:x", after(-5, "k1:1:x")),
            ("k1:5:", after(5, "")),
            ("17", Place::Offset(17)),
            ("", Place::Offset(0)),
            ("-3", Place::Offset(0)),
            ("+3", Place::Offset(0)),
            ("k1:x", Place::Offset(0)),
            ("k1:1", Place::Offset(0)),
            ("k1:+1:a", Place::Offset(0)),
            ("k1:9007199254740992:a", Place::Offset(0)),
        ] {
            assert_eq!(place(Some(text)), wanted, "{text}");
        }
        assert_eq!(place(Some(&cursor(7, "a:b"))), after(7, "a:b"));
        assert_eq!(place(None), Place::Offset(0));
    }

    #[test]
    fn limits_are_cut() {
        for (asked, wanted) in [
            (None, 100),
            (Some(0.5), 100),
            (Some(-1.0), 100),
            (Some(f64::NAN), 100),
            (Some(2.9), 2),
            (Some(5000.0), 1000),
            (Some(f64::INFINITY), 1000),
        ] {
            assert_eq!(limit(asked), wanted, "{asked:?}");
        }
    }

    #[test]
    fn a_payload_is_an_object_of_anything() {
        let event = |payload: &str| {
            let text = format!(
                r#"{{"id":"e","eventIndex":1,"sessionId":"s","createdAt":1,"connectionId":"c",
                   "sender":"client","payload":{payload}}}"#
            );
            serde_json::from_str::<PersistedEvent>(&text).map(|event| event.check("s").is_ok())
        };
        for good in ["{}", r#"{"a":"\u0000\ud83d\udc38","a":[[1e99]]}"#] {
            assert!(event(good).expect("read"), "{good}");
        }
        for bad in ["[]", "1", "null", "\"x\"", "{1:2}"] {
            assert!(event(bad).is_err(), "{bad}");
        }
    }
}
