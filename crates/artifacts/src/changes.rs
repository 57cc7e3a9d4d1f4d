//! What a run changed.

use std::fs::File;
use std::ops::ControlFlow;

use crate::baseline::Baseline;
use crate::layer::{Found, Layer, LayerError, Mark};

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Created,
    Modified,
}

/// A file that is not what it was when the run began.
#[derive(Debug)]
pub struct Changed {
    /// As the sandbox names it.
    pub path: Vec<u8>,
    pub change: Change,
    /// When it was looked at.
    pub size: u64,
    /// The same.
    pub mark: Mark,
    /// To be read; `Err` says why it cannot be.
    pub file: Result<File, String>,
}

/// Tells each file below the baseline's folders that is not what it was, until the end or a break.
/// One that was put in the place of a file of a layer below counts as created. Blocking.
pub fn changes(
    layer: &Layer,
    mut baseline: Baseline,
    mut leave_out: impl FnMut(&[u8]) -> bool,
    mut tell: impl FnMut(Changed) -> ControlFlow<()>,
) -> Result<(), LayerError> {
    for folder in baseline.folders() {
        let mut visit = |found: &Found<'_>| -> Result<ControlFlow<()>, LayerError> {
            let was = baseline.was(found.path)?;
            if was == Some(found.mark) {
                return Ok(ControlFlow::Continue(()));
            }
            let (file, copied_up) = match found.open() {
                Ok(Some(opened)) => (Ok(opened.file), opened.copied_up),
                Ok(None) => return Ok(ControlFlow::Continue(())),
                Err(error) => (Err(error.to_string()), false),
            };
            let change = match was.is_some() || copied_up {
                true => Change::Modified,
                false => Change::Created,
            };
            Ok(tell(Changed {
                path: found.path.to_vec(),
                change,
                size: found.mark.size,
                mark: found.mark,
                file,
            }))
        };
        if layer.walk(&folder, &mut leave_out, &mut visit)?.is_break() {
            break;
        }
    }
    Ok(())
}
