//! JSON patches for `kubectl patch --type=json`. The lists of policies are atomic: a strategic merge would overwrite them whole.

use serde_json::Value;

use crate::policy::explanation::PatchOperation;

/// Appends to a list that may be absent. The `test` guards the last entry; where there is none, `otherwise`.
pub(super) fn add_to_list(
    path: &str,
    current: impl ExactSizeIterator<Item = Value>,
    value: Value,
    otherwise: PatchOperation,
) -> Vec<PatchOperation> {
    let len = current.len();
    match current.last() {
        Some(last) => vec![
            PatchOperation::Test { path: format!("{path}/{}", len - 1), value: last },
            PatchOperation::Add { path: format!("{path}/-"), value },
        ],
        // The API server leaves empty lists out: the member is set, whether it is there or not.
        None => vec![otherwise, PatchOperation::Add { path: path.to_owned(), value: Value::Array(vec![value]) }],
    }
}

/// Inserts into a list before the entry at `index`, which must still be the one it was.
pub(super) fn insert_before(path: &str, index: usize, at: Value, value: Value) -> Vec<PatchOperation> {
    let path = format!("{path}/{index}");
    vec![PatchOperation::Test { path: path.clone(), value: at }, PatchOperation::Add { path, value }]
}

/// A key as a segment of a JSON pointer (RFC 6901).
pub(super) fn segment(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
