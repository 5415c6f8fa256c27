//! What a payload has to look like: a part of JSON Schema, as data. Texts of JSON are canonical (see `gaffer_config::payload`), so that they
//! can be compared.

use std::collections::BTreeMap;
use std::sync::Arc;

/// What a value has to look like. What is not said is not asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema {
    /// One of these; empty: any.
    pub kinds: Vec<Kind>,
    /// One of these, as JSON.
    pub one_of: Option<Vec<Arc<str>>>,
    /// Bounds of a number.
    pub number: Bounds,
    /// Characters of a text: at least, at most.
    pub length: (u64, Option<u64>),
    /// Entries of a list: at least, at most.
    pub count: (u64, Option<u64>),
    /// Every entry of a list.
    pub items: Option<Box<Schema>>,
    /// Fields that an object has to have.
    pub required: Vec<Arc<str>>,
    /// Fields that it may have.
    pub properties: BTreeMap<Arc<str>, Schema>,
    /// All other fields.
    pub others: Others,
}

/// Kinds of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `null`.
    Null,
    /// `boolean`.
    Boolean,
    /// `integer`: a number without a fraction.
    Integer,
    /// `number`.
    Number,
    /// `string`.
    String,
    /// `array`.
    Array,
    /// `object`.
    Object,
}

/// Bounds of a number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    /// At least.
    pub min: Option<f64>,
    /// At most.
    pub max: Option<f64>,
    /// More than.
    pub above: Option<f64>,
    /// Less than.
    pub below: Option<f64>,
}

/// Fields of an object that are not named.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Others {
    /// May be there.
    #[default]
    Allowed,
    /// May not.
    Refused,
    /// May be there if they look like this.
    Like(Box<Schema>),
}
