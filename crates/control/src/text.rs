//! For records: nouns of `model`, which don't serialize themselves, as the text that people write for them.

use arcstr::ArcStr;
use model::{
    AddressGroupId, Direction, Family, GroupId, HostId, MacAddr, NetworkId, PortId, Prefix,
    ProjectId, RuleId, ScopeId,
};
use serde::{Deserialize, Deserializer, Serializer, de::Error};
use std::fmt;

/// What has a text, and can be had from it.
pub(crate) trait Text: Sized + fmt::Display {
    fn read(text: &str) -> Option<Self>;
}

macro_rules! ids {
    ($($id:ident),+) => {$(
        impl Text for $id {
            fn read(text: &str) -> Option<Self> { Some(Self::from(text)) }
        }
    )+};
}
ids!(
    AddressGroupId,
    GroupId,
    HostId,
    NetworkId,
    PortId,
    ProjectId,
    RuleId,
    ScopeId
);

impl Text for ArcStr {
    fn read(text: &str) -> Option<Self> {
        Some(text.into())
    }
}

impl Text for Prefix {
    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Text for MacAddr {
    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Text for Direction {
    fn read(text: &str) -> Option<Self> {
        Direction::BOTH.into_iter().find(|d| d.to_string() == text)
    }
}

impl Text for Family {
    fn read(text: &str) -> Option<Self> {
        Family::BOTH.into_iter().find(|f| f.to_string() == text)
    }
}

pub(crate) fn serialize<T: Text, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

pub(crate) fn deserialize<'de, T: Text, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    read(&String::deserialize(from)?)
}

fn read<T: Text, E: Error>(text: &str) -> Result<T, E> {
    T::read(text).ok_or_else(|| E::custom(format_args!("unexpected text {text:?}")))
}

/// Sets of them, as lists.
pub(crate) mod set {
    use super::{Text, read};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<'a, T: Text + 'a, S: Serializer, Values>(
        values: &'a Values,
        to: S,
    ) -> Result<S::Ok, S::Error>
    where
        &'a Values: IntoIterator<Item = &'a T>,
    {
        to.collect_seq(values.into_iter().map(ToString::to_string))
    }

    pub(crate) fn deserialize<'de, T: Text, D: Deserializer<'de>, Values: FromIterator<T>>(
        from: D,
    ) -> Result<Values, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        texts.iter().map(|text| read(text)).collect()
    }
}

/// What is by their names.
pub(crate) mod map {
    use super::{Text, read};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::collections::BTreeMap;

    pub(crate) fn serialize<K: Text, V: Serialize, S: Serializer>(
        values: &BTreeMap<K, V>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_map(values.iter().map(|(key, value)| (key.to_string(), value)))
    }

    pub(crate) fn deserialize<'de, K: Text + Ord, V: Deserialize<'de>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeMap<K, V>, D::Error> {
        let by_text = BTreeMap::<String, V>::deserialize(from)?;
        let by_name = by_text.into_iter();
        by_name
            .map(|(text, value)| Ok((read(&text)?, value)))
            .collect()
    }
}
