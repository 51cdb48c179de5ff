//! Tests of the conversion, from JSON as the API has it.

mod cluster_policies;
mod cluster_refused;
mod objects;
mod policies;
mod refused;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

fn from<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object of the API")
}
