//! Values in JSON messages that need care: paths of any bytes, moments, ids.

use crate::text;
use serde::Serialize;
use std::fmt::Write as _;
use stillpoint_store::Timestamp;

/// A path: `path` is always there; when the bytes are not UTF-8 it is an approximation (U+FFFD for what does not
/// fit), and `path_bytes` holds the exact bytes in hexadecimal.
#[derive(Debug, Clone, Serialize)]
pub struct Path<'a> {
    path: std::borrow::Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
}

impl<'a> Path<'a> {
    /// The path with these bytes.
    pub fn item(bytes: &'a [u8]) -> Self {
        let (path, path_bytes) = lossless(bytes);
        Self { path, path_bytes }
    }
}

/// The text of the bytes, and the bytes in hexadecimal when the text is only an approximation.
pub fn lossless(bytes: &[u8]) -> (std::borrow::Cow<'_, str>, Option<String>) {
    let text = String::from_utf8_lossy(bytes);
    let exact = std::str::from_utf8(bytes).is_err().then(|| hex(bytes));
    (text, exact)
}

/// Bytes in lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// A moment as RFC 3339 in UTC.
pub fn moment(time: Timestamp) -> String {
    text::rfc3339(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Every byte string has an exact form.
    #[test]
    fn paths_are_lossless() {
        let json = |bytes: &[u8]| serde_json::to_string(&Path::item(bytes)).unwrap();
        assert_eq!(json(b"/a/b"), r#"{"path":"/a/b"}"#);
        assert_eq!(json(b"/a\xff"), "{\"path\":\"/a\u{fffd}\",\"path_bytes\":\"2f61ff\"}");
    }
}
