//! Content codings: which one an answer has, and undoing the one a body came in.

use std::io::{self, Write as _};

use flate2::write::MultiGzDecoder;
use http::{HeaderMap, StatusCode, header};

use crate::envd::rest::RestError;

/// Compressed bytes that are undone at once: bounds what one step can grow to (about 1000 times).
const STEP: usize = 4 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
}

/// What the client would like of what we have; 406 if it wants neither.
pub(super) fn accepted(headers: &HeaderMap) -> Result<Coding, RestError> {
    let (mut gzip, mut identity, mut any) = (None, None, None);
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    for item in values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
    {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts
            .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
            .map_or(Some(1.0), |text| text.trim().parse::<f32>().ok())
            .unwrap_or(0.0);
        match name.as_str() {
            "gzip" | "x-gzip" => gzip = Some(quality),
            "identity" => identity = Some(quality),
            "*" => any = Some(quality),
            _ => {}
        }
    }
    let gzip = gzip.or(any).unwrap_or(0.0);
    let refused = identity.or(any).is_some_and(|quality| quality <= 0.0);
    // Identity unasked for is acceptable, but less wanted than what was asked for.
    let identity = identity.unwrap_or(0.0);
    if gzip > 0.0 && gzip >= identity {
        Ok(Coding::Gzip)
    } else if refused {
        let text = "no acceptable content encoding; supported: gzip, identity";
        Err(RestError::new(StatusCode::NOT_ACCEPTABLE, text))
    } else {
        Ok(Coding::Identity)
    }
}

/// Undoes a body's coding as it comes.
pub(super) enum Undo {
    Identity,
    Gzip(Box<MultiGzDecoder<Vec<u8>>>),
}

impl Undo {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, RestError> {
        let Some(value) = headers.get(header::CONTENT_ENCODING) else {
            return Ok(Self::Identity);
        };
        match value
            .to_str()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
            .as_str()
        {
            "" | "identity" => Ok(Self::Identity),
            "gzip" | "x-gzip" => Ok(Self::Gzip(Box::new(MultiGzDecoder::new(Vec::new())))),
            other => {
                let text = format!("unsupported Content-Encoding: {other}, supported: gzip");
                Err(RestError::new(StatusCode::BAD_REQUEST, text))
            }
        }
    }

    /// Splits a piece of the body so that each part stays small when undone.
    pub(super) fn steps<'a>(&self, bytes: &'a [u8]) -> std::slice::Chunks<'a, u8> {
        match self {
            Self::Identity => bytes.chunks(bytes.len().max(1)),
            Self::Gzip(_) => bytes.chunks(STEP),
        }
    }

    /// What one step is when undone. Only for gzip; identity bytes are passed on as they are.
    pub(super) fn step(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, RestError> {
        match self {
            Self::Identity => Ok(None),
            Self::Gzip(decoder) => {
                decoder.write_all(bytes).map_err(damaged)?;
                Ok(Some(std::mem::take(decoder.get_mut())))
            }
        }
    }

    /// The last bytes.
    pub(super) fn finish(&mut self) -> Result<Vec<u8>, RestError> {
        match self {
            Self::Identity => Ok(Vec::new()),
            Self::Gzip(decoder) => {
                decoder.try_finish().map_err(damaged)?;
                Ok(std::mem::take(decoder.get_mut()))
            }
        }
    }
}

fn damaged(error: io::Error) -> RestError {
    let text = format!("error decompressing request body: {error}");
    RestError::new(StatusCode::BAD_REQUEST, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_choose() {
        let with = |value: &str| {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, value.parse().unwrap())]);
            accepted(&headers).map_err(|error| error.status)
        };
        assert_eq!(accepted(&HeaderMap::new()), Ok(Coding::Identity));
        assert_eq!(with("gzip, deflate, br"), Ok(Coding::Gzip));
        assert_eq!(with("br"), Ok(Coding::Identity));
        assert_eq!(with("gzip;q=0"), Ok(Coding::Identity));
        assert_eq!(with("gzip;q=0.5, identity"), Ok(Coding::Identity));
        assert_eq!(with("*"), Ok(Coding::Gzip));
        assert_eq!(
            with("identity;q=0, gzip;q=0"),
            Err(StatusCode::NOT_ACCEPTABLE)
        );
        assert_eq!(with("br, *;q=0"), Err(StatusCode::NOT_ACCEPTABLE));
    }

    #[test]
    fn gzip_is_undone_across_any_split_and_damage_is_noticed() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let plain: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        encoder.write_all(&plain).unwrap();
        let wire = encoder.finish().unwrap();
        let undo = |wire: &[u8]| {
            let headers =
                HeaderMap::from_iter([(header::CONTENT_ENCODING, "gzip".parse().unwrap())]);
            let mut undo = Undo::of(&headers).unwrap();
            let mut out = Vec::new();
            for piece in wire.chunks(1000) {
                for step in undo.steps(piece) {
                    out.extend(undo.step(step)?.unwrap());
                }
            }
            out.extend(undo.finish()?);
            Ok::<_, RestError>(out)
        };
        assert_eq!(undo(&wire), Ok(plain));
        assert!(undo(&wire[..wire.len() - 5]).is_err());
        assert!(undo(b"not gzip at all").is_err());
    }
}
