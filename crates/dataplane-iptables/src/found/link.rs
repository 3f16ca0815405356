//! The table of link.nft, as nft prints it in JSON, in one form whoever writes it.
//!
//! nft prints the index of a device that is there as its name, ranges that are prefixes as prefixes, and
//! numbers that are too large for JSON as text.

use crate::element::Element;
use crate::skeleton;
use crate::tools::Tools;
use dataplane::Count;
use model::Prefix;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::CString;
use std::io;
use std::net::IpAddr;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// By set or map: its elements, with what each leads to.
    pub(crate) elements: BTreeMap<String, BTreeMap<String, Option<String>>>,
    /// Sets and maps whose elements each begin with a device.
    pub(crate) by_device: BTreeSet<String>,
    /// By chain: how many rules.
    pub(crate) rules: BTreeMap<String, usize>,
    /// By set, then device.
    pub(crate) counts: BTreeMap<String, BTreeMap<u32, Count>>,
    expires: BTreeMap<(String, String), u32>,
}

impl Link {
    /// `None`: there is no such table.
    pub(crate) fn read(tools: &Tools, table: &str) -> io::Result<Option<Self>> {
        match tools.nft(&["-jp", "list", "table", "bridge", table]) {
            Ok(json) => Self::parse(&json).map(Some),
            Err(error) if error.to_string().contains("No such file or directory") => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn parse(json: &str) -> io::Result<Self> {
        let listed: Value = serde_json::from_str(json)?;
        let mut link = Self::default();
        let mut devices = Devices::default();
        for object in listed["nftables"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            if let Some(chain) = object.get("chain") {
                link.rules.entry(text(&chain["name"])).or_default();
            } else if let Some(rule) = object.get("rule") {
                *link.rules.entry(text(&rule["chain"])).or_default() += 1;
            } else if let Some(set) = object.get("set").or_else(|| object.get("map")) {
                link.add_set(text(&set["name"]), set, &mut devices);
            }
        }
        Ok(link)
    }

    /// Whether it has the chains and sets that this text makes, by their names.
    pub(crate) fn is_of(&self, text: &str) -> bool {
        let sets: BTreeSet<&str> = skeleton::sets(text).map(|set| set.name).collect();
        self.rules.keys().eq(rules_of(text).keys())
            && self.elements.keys().map(String::as_str).eq(sets)
    }

    /// Devices in `held`, and for how many seconds yet.
    pub(crate) fn held(&self) -> BTreeMap<u32, u32> {
        let held = self.expires.iter().filter(|((set, _), _)| set == "held");
        held.filter_map(|((_, key), seconds)| Some((key.parse().ok()?, *seconds)))
            .collect()
    }

    fn add_set(&mut self, name: String, set: &Value, devices: &mut Devices) {
        let types: Vec<&str> = match &set["type"] {
            Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
            one => one.as_str().into_iter().collect(),
        };
        if types.first() == Some(&"iface_index") {
            self.by_device.insert(name.clone());
        }
        let elements = self.elements.entry(name.clone()).or_default();
        for listed in set["elem"].as_array().into_iter().flatten() {
            let (listed, leads_to) = match listed {
                Value::Array(pair) if pair.len() == 2 => (&pair[0], Some(word(&pair[1]))),
                other => (other, None),
            };
            let (value, about) = match listed.get("elem") {
                Some(about) => (&about["val"], Some(about)),
                None => (listed, None),
            };
            let key = key(value, &types, devices);
            if let Some(about) = about {
                let counter = &about["counter"];
                if let (Some(packets), Ok(device)) = (counter["packets"].as_u64(), key.parse()) {
                    let bytes = counter["bytes"].as_u64().unwrap_or_default();
                    let counts = self.counts.entry(name.clone()).or_default();
                    counts.insert(device, Count { packets, bytes });
                }
                let expires = about["expires"]
                    .as_u64()
                    .and_then(|s| u32::try_from(s).ok());
                if let Some(seconds) = expires {
                    self.expires.insert((name.clone(), key.clone()), seconds);
                }
            }
            elements.insert(key, leads_to);
        }
    }
}

/// What an element of ours is found as.
pub(crate) fn expected(element: &Element) -> (String, Option<String>) {
    let words = element.key.iter();
    let words: Vec<String> = words.map(|field| canonical(&field.to_string())).collect();
    let value = element.value.map(|value| value.to_string());
    (words.join(" . "), value)
}

fn key(value: &Value, types: &[&str], devices: &mut Devices) -> String {
    let words: Vec<&Value> = match value.get("concat").and_then(Value::as_array) {
        Some(words) => words.iter().collect(),
        None => vec![value],
    };
    let typed = words.iter().zip(types.iter().chain(std::iter::repeat(&"")));
    let words = typed.map(|(value, typed)| match (*typed, value.as_str()) {
        ("iface_index", Some(name)) => devices.index(name),
        ("ether_type", Some("ip")) => 0x0800.to_string(),
        ("ether_type", Some("arp")) => 0x0806.to_string(),
        ("ether_type", Some("ip6")) => 0x86dd.to_string(),
        ("ether_type", Some("8021q" | "vlan")) => 0x8100.to_string(),
        ("ether_type", Some("8021ad")) => 0x88a8.to_string(),
        _ => word(value),
    });
    words.collect::<Vec<_>>().join(" . ")
}

fn word(value: &Value) -> String {
    if let Some(text) = value.as_str() {
        return canonical(text);
    }
    if let Some(prefix) = value.get("prefix") {
        let address = prefix["addr"].as_str().unwrap_or_default();
        return canonical(&format!("{address}/{}", prefix["len"]));
    }
    if let Some([from, to]) = value
        .get("range")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
    {
        return format!("{}-{}", word(from), word(to));
    }
    value.to_string()
}

/// Numbers in decimal, prefixes as ranges, a range of one as that one.
fn canonical(text: &str) -> String {
    if let Some((from, to)) = text.split_once('-') {
        return range(canonical(from), canonical(to));
    }
    if let Some(hex) = text.strip_prefix("0x")
        && let Ok(number) = u128::from_str_radix(hex, 16)
    {
        return number.to_string();
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return address.to_string();
    }
    match text.parse::<Prefix>() {
        Ok(prefix) => range(prefix.network().to_string(), prefix.last().to_string()),
        Err(_) => text.to_owned(),
    }
}

fn range(from: String, to: String) -> String {
    match from == to {
        true => from,
        false => format!("{from}-{to}"),
    }
}

/// Indices by the names that they are printed as.
#[derive(Default)]
struct Devices(HashMap<String, String>);

impl Devices {
    /// A device may have a number for a name.
    fn index(&mut self, name: &str) -> String {
        if let Some(known) = self.0.get(name) {
            return known.clone();
        }
        let index = index(name).map_or_else(|| name.to_owned(), |index| index.to_string());
        self.0.insert(name.to_owned(), index.clone());
        index
    }
}

fn index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: a string that ends with 0, and lives through the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => None,
        index => Some(index),
    }
}

/// The name of a device; `None`: there is none of this index.
pub(crate) fn name(ifindex: u32) -> Option<String> {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: it writes at most IF_NAMESIZE bytes, with a 0 at the end.
    let found = unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr()) };
    if found.is_null() {
        return None;
    }
    let bytes: Vec<u8> = name
        .iter()
        .take_while(|b| **b != 0)
        .map(|b| *b as u8)
        .collect();
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Rules by chain that a table has just after it was made of this text.
pub(crate) fn rules_of(text: &str) -> BTreeMap<String, usize> {
    let mut rules = BTreeMap::new();
    let mut chain = None;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("chain ") {
            let name = name.trim_end_matches([' ', '{']).to_owned();
            rules.insert(name.clone(), 0);
            chain = Some(name);
        } else if line == "}" {
            chain = None;
        } else if let Some(chain) = &chain
            && !(line.is_empty() || line.starts_with('#') || line.starts_with("type "))
        {
            *rules.entry(chain.clone()).or_default() += 1;
        }
    }
    rules
}

/// By set: what elements of ours are found as.
pub(crate) fn expected_by_set<'a>(
    elements: impl Iterator<Item = &'a Element>,
) -> BTreeMap<String, BTreeMap<String, Option<String>>> {
    let mut sets: BTreeMap<String, BTreeMap<_, _>> = BTreeMap::new();
    for element in elements {
        let (key, value) = expected(element);
        let set = sets.entry(element.set.to_owned()).or_default();
        set.insert(key, value);
    }
    sets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::Field;
    use model::MacAddr;
    use serde_json::json;

    #[test]
    fn elements_are_the_same_however_they_are_written() {
        let device = Field::Device(7);
        let address = |text: &str| Field::Address(text.parse().expect("an address"));
        let range = |text: &str| Field::Range(text.parse().expect("a prefix"));
        let link_local = "fe80::1".parse().expect("an address");
        let rows: [(&[Field], _, &[&str]); 11] = [
            (&[Field::Device(77)], json!("77"), &["iface_index"]),
            (
                &[Field::Device(1), Field::Mac(MacAddr([2, 0, 0, 0, 0, 1]))],
                json!({"concat": ["lo", "02:00:00:00:00:01"]}),
                &["iface_index", "ether_addr"],
            ),
            (
                &[device, range("10.0.0.0/24")],
                json!({"concat": ["7", {"prefix": {"addr": "10.0.0.0", "len": 24}}]}),
                &["iface_index", "ipv4_addr"],
            ),
            (
                &[device, range("10.0.0.1/32")],
                json!({"concat": ["7", "10.0.0.1"]}),
                &["iface_index", "ipv4_addr"],
            ),
            (
                &[device, range("0.0.0.0/0")],
                json!({"concat": ["7", {"prefix": {"addr": "0.0.0.0", "len": 0}}]}),
                &["iface_index", "ipv4_addr"],
            ),
            (
                &[Field::Mark(7), address("fe80::1")],
                json!({"concat": [7, "fe80::1"]}),
                &["mark", "ipv6_addr"],
            ),
            (
                &[Field::Mark(7), Field::RawAddress(link_local)],
                json!({"concat": [7, "0xfe800000000000000000000000000001"]}),
                &["mark", "integer"],
            ),
            (
                &[
                    device,
                    Field::RawRange("::10/124".parse().expect("a prefix")),
                ],
                json!({"concat": ["7", {"range": ["0x10", "0x1f"]}]}),
                &["iface_index", "integer"],
            ),
            (
                &[
                    Field::Mark(0x1000),
                    address("10.0.0.1"),
                    Field::Protocol(6),
                    Field::L4Port(443),
                ],
                json!({"concat": [4096, "10.0.0.1", 6, 443]}),
                &["mark", "ipv4_addr", "inet_proto", "inet_service"],
            ),
            (&[Field::Ethertype(0x0806)], json!("arp"), &["ether_type"]),
            (&[Field::Ethertype(0x88cc)], json!(35020), &["ether_type"]),
        ];
        for (ours, printed, types) in rows {
            let element = Element {
                set: "a",
                key: ours.to_vec(),
                value: None,
            };
            let found = key(&printed, types, &mut Devices::default());
            assert_eq!(expected(&element).0, found, "{element}");
        }
    }

    #[test]
    fn a_table_is_read_with_its_counters_and_holds() {
        let listed = json!({"nftables": [
            {"metainfo": {}},
            {"set": {"name": "held", "type": "iface_index",
                "elem": [{"elem": {"val": "77", "timeout": 100, "expires": 98}}]}},
            {"set": {"name": "passed_to", "type": "iface_index",
                "elem": [{"elem": {"val": "77", "counter": {"packets": 3, "bytes": 180}}}]}},
            {"map": {"name": "to4", "type": "iface_index", "map": "mark", "elem": [["77", 4097]]}},
            {"chain": {"name": "input"}},
            {"chain": {"name": "empty"}},
            {"rule": {"chain": "input"}},
            {"rule": {"chain": "input"}},
        ]});
        let link = Link::parse(&listed.to_string()).expect("it is JSON");
        assert_eq!(link.held(), BTreeMap::from([(77, 98)]));
        let count = Count {
            packets: 3,
            bytes: 180,
        };
        assert_eq!(link.counts["passed_to"], BTreeMap::from([(77, count)]));
        let to = BTreeMap::from([("77".to_owned(), Some("4097".to_owned()))]);
        assert_eq!(link.elements["to4"], to);
        let rules = [("empty".to_owned(), 0), ("input".to_owned(), 2)];
        assert_eq!(link.rules, BTreeMap::from(rules));
    }
}
