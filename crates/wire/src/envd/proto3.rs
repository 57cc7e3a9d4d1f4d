//! The scalar rules of proto3 JSON.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Decodes base64 as proto3 JSON readers must: either alphabet, with or without padding.
pub fn decode_base64(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    if text.bytes().any(|byte| byte == b'-' || byte == b'_') {
        URL_SAFE.decode(text)
    } else {
        STANDARD.decode(text)
    }
}

/// Bytes that are base64 text in JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        decode_base64(&text)
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

/// `null` reads as the default.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A 32-bit number that may come as text.
pub(crate) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    Ok(optional_number(deserializer)?.unwrap_or(0))
}

/// As [`number`], keeping whether it was there.
pub(crate) fn optional_number<'de, D>(deserializer: D) -> Result<Option<u32>, D::Error>
where
    D: Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Number(u32),
        Float(f64),
        Text(String),
    }
    let form = Option::<Form>::deserialize(deserializer)?;
    form.map(|form| match form {
        Form::Number(number) => Ok(number),
        Form::Float(float)
            if float.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&float) =>
        {
            // In range and whole: the text form is the shortest exact conversion.
            format!("{float:.0}")
                .parse()
                .map_err(serde::de::Error::custom)
        }
        Form::Float(_) => Err(serde::de::Error::custom("not a 32-bit unsigned number")),
        Form::Text(text) => text.parse().map_err(serde::de::Error::custom),
    })
    .transpose()
}

/// 64-bit integers are text in proto3 JSON.
pub(crate) fn as_text<S: Serializer, T: std::fmt::Display>(
    value: &T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// A `Timestamp` message: RFC 3339 with nanoseconds, UTC. Times that no calendar holds become
/// the epoch.
pub fn rfc3339_nanos(nanos: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(nanos))
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_string()
}
