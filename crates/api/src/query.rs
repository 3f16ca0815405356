//! What a list request wants: filters, fields, order, a page; and the links to the pages beside it.
//!
//! Filters are ANDed, the values of one ORed. Without an order it is that of ids, and ids decide between equals,
//! so pages don't overlap.

use crate::attribute::{Attribute, cut, listed};
use crate::fault::Fault;
use form_urlencoded::Serializer;
use serde_json::Value;
use std::cmp::Ordering;
use std::collections::BTreeSet;

#[derive(Debug)]
pub(crate) struct Wanted {
    pairs: Vec<(String, String)>,
    filters: Vec<Filter>,
    /// None: all.
    fields: BTreeSet<String>,
    sort: Vec<(&'static Attribute, Direction)>,
    limit: usize,
    marker: Option<String>,
    reverse: bool,
}

#[derive(Debug)]
enum Filter {
    Equals(&'static Attribute, Vec<String>),
    Tags(TagsAre, Vec<String>),
    /// A field of one of the port's addresses.
    Fixed(FixedField, Vec<String>),
}

#[derive(Clone, Copy, Debug)]
enum TagsAre {
    All,
    Any,
    NotAll,
    NotAny,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FixedField {
    Address,
    PartOfAddress,
    Subnet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Ascending,
    Descending,
}

const TAGS: [(&str, TagsAre); 4] = [
    ("tags", TagsAre::All),
    ("tags-any", TagsAre::Any),
    ("not-tags", TagsAre::NotAll),
    ("not-tags-any", TagsAre::NotAny),
];

const FIXED: [(&str, FixedField); 3] = [
    ("ip_address=", FixedField::Address),
    ("ip_address_substr=", FixedField::PartOfAddress),
    ("subnet_id=", FixedField::Subnet),
];

/// Which part of a list is wanted of what was found, and whether there is more.
#[derive(Debug, PartialEq)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    pub(crate) links: Vec<(&'static str, String)>,
}

pub(crate) fn pairs(query: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect()
}

impl Wanted {
    /// `most`: the longest page there is.
    pub(crate) fn read(
        query: &str,
        attributes: &'static [Attribute],
        most: usize,
    ) -> Result<Self, Fault> {
        let pairs = pairs(query);
        let mut wanted = Self {
            filters: Vec::new(),
            fields: BTreeSet::new(),
            sort: Vec::new(),
            limit: 0,
            marker: None,
            reverse: false,
            pairs: Vec::new(),
        };
        let (mut keys, mut directions, mut unknown) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (name, value) in &pairs {
            match name.as_str() {
                "fields" => drop(wanted.fields.insert(value.clone())),
                "limit" => wanted.limit = limit(value)?,
                "marker" => wanted.marker = Some(value.clone()).filter(|marker| !marker.is_empty()),
                "page_reverse" => wanted.reverse = value.eq_ignore_ascii_case("true"),
                "sort_key" if value.is_empty() => {}
                "sort_key" => keys.push(value.as_str()),
                "sort_dir" if value.is_empty() => {}
                "sort_dir" => directions.push(value.as_str()),
                _ => {
                    if !wanted.filter(name, value, attributes)? {
                        unknown.insert(name.as_str());
                    }
                }
            }
        }
        if !unknown.is_empty() {
            let unknown = listed(&Vec::from_iter(unknown));
            let message = format!("{} is invalid attribute for filtering", cut(&unknown));
            return Err(Fault::bad(message));
        }
        wanted.sort = sorts(&keys, &directions, attributes)?;
        wanted.fields.remove("");
        if wanted.limit == 0 || wanted.limit > most {
            wanted.limit = most;
        }
        wanted.pairs = pairs;
        Ok(wanted)
    }

    /// False: there is none of that name.
    fn filter(
        &mut self,
        name: &str,
        value: &str,
        attributes: &'static [Attribute],
    ) -> Result<bool, Fault> {
        let find = |name: &str| attributes.iter().find(|a| a.name == name && a.filter);
        if let Some((_, are)) = TAGS.iter().find(|(tags, _)| *tags == name)
            && find("tags").is_some()
        {
            let tags = value.split(',').map(str::to_owned).collect();
            self.filters.push(Filter::Tags(*are, tags));
            return Ok(true);
        }
        if name == "fixed_ips" && attributes.iter().any(|a| a.name == name) {
            let (field, value) = fixed(value)?;
            let same = self.filters.iter_mut().find_map(|filter| match filter {
                Filter::Fixed(other, values) if *other == field => Some(values),
                _ => None,
            });
            match same {
                Some(values) => values.push(value),
                None => self.filters.push(Filter::Fixed(field, vec![value])),
            }
            return Ok(true);
        }
        let Some(attribute) = find(name) else {
            return Ok(false);
        };
        let value = attribute.shape.filter(value);
        let same = self.filters.iter_mut().find_map(|filter| match filter {
            Filter::Equals(other, values) if other.name == name => Some(values),
            _ => None,
        });
        match same {
            Some(values) => values.push(value),
            None => self.filters.push(Filter::Equals(attribute, vec![value])),
        }
        Ok(true)
    }

    /// What an attribute has to equal, if that is asked: a way to look less far.
    pub(crate) fn values(&self, name: &str) -> Option<&[String]> {
        self.filters.iter().find_map(|filter| match filter {
            Filter::Equals(attribute, values) if attribute.name == name => Some(values.as_slice()),
            Filter::Equals(..) | Filter::Tags(..) | Filter::Fixed(..) => None,
        })
    }

    pub(crate) fn shows(&self, name: &str) -> bool {
        self.fields.is_empty() || self.fields.contains(name)
    }

    /// `read`: an attribute of an item.
    pub(crate) fn matches(&self, read: impl Fn(&str) -> Value) -> bool {
        self.filters.iter().all(|filter| filter.matches(&read))
    }

    /// Of all that match, in the order of ids. `base`: the list's own address.
    pub(crate) fn page<T>(
        &self,
        mut items: Vec<T>,
        read: impl Fn(&T, &str) -> Value,
        base: &str,
    ) -> Result<Page<T>, Fault> {
        if !self.sort.is_empty() {
            items = self.sorted(items, &read);
        }
        let id = |item: &T| read(item, "id");
        if self.reverse {
            items.reverse();
        }
        let from = match &self.marker {
            None => 0,
            Some(marker) => {
                let at = items.iter().position(|item| id(item) == marker.as_str());
                let missing = || Fault::bad(format!("The marker '{}' is not there", cut(marker)));
                at.ok_or_else(missing)? + 1
            }
        };
        let rest = items.split_off(from.min(items.len()));
        let full = rest.len() >= self.limit;
        let mut items: Vec<T> = rest.into_iter().take(self.limit).collect();
        if self.reverse {
            items.reverse();
        }
        // As Neutron has it: the way back is there unless it was gone to its end.
        let (next, previous) = (full || self.reverse, full || !self.reverse);
        let paged = full || self.asked_for_pages();
        let (first, last) = (items.first().map(id), items.last().map(id));
        let mut links = Vec::new();
        if paged && next {
            links.push(("next", self.link(base, last, false)));
        }
        if paged && previous {
            links.push(("previous", self.link(base, first, true)));
        }
        Ok(Page { items, links })
    }

    fn asked_for_pages(&self) -> bool {
        let limit = self.pairs.iter().find(|(name, _)| name == "limit");
        limit.is_some_and(|(_, limit)| limit != "0")
    }

    fn sorted<T>(&self, items: Vec<T>, read: &impl Fn(&T, &str) -> Value) -> Vec<T> {
        let keyed = items.into_iter().map(|item| {
            let keys = self.sort.iter().map(|(by, _)| read(&item, by.name));
            (keys.collect::<Vec<_>>(), item)
        });
        let mut keyed: Vec<_> = keyed.collect();
        // Stable: equals stay in the order of ids.
        keyed.sort_by(|(a, _), (b, _)| {
            let each = self.sort.iter().zip(a.iter().zip(b));
            let each = each.map(|((_, direction), (a, b))| match direction {
                Direction::Ascending => order(a, b),
                Direction::Descending => order(b, a),
            });
            each.fold(Ordering::Equal, Ordering::then)
        });
        keyed.into_iter().map(|(_, item)| item).collect()
    }

    fn link(&self, base: &str, marker: Option<Value>, reverse: bool) -> String {
        let mut query = Serializer::new(String::new());
        for (name, value) in &self.pairs {
            if name != "marker" && name != "page_reverse" {
                query.append_pair(name, value);
            }
        }
        if !self.asked_for_pages() {
            query.append_pair("limit", &self.limit.to_string());
        }
        if let Some(marker) = marker.as_ref().and_then(Value::as_str) {
            query.append_pair("marker", marker);
        }
        if reverse {
            query.append_pair("page_reverse", "True");
        }
        format!("{base}?{}", query.finish())
    }
}

impl Filter {
    fn matches(&self, read: impl Fn(&str) -> Value) -> bool {
        match self {
            Filter::Equals(attribute, values) => {
                let value = read(attribute.name);
                values.iter().any(|wanted| is(&value, wanted))
            }
            Filter::Tags(are, tags) => {
                let has = read("tags");
                let each = |tag: &String| is(&has, tag);
                match are {
                    TagsAre::All => tags.iter().all(each),
                    TagsAre::Any => tags.iter().any(each),
                    TagsAre::NotAll => !tags.iter().all(each),
                    TagsAre::NotAny => !tags.iter().any(each),
                }
            }
            Filter::Fixed(field, values) => {
                let addresses = read("fixed_ips");
                let mut addresses = addresses.as_array().into_iter().flatten();
                addresses.any(|fixed| values.iter().any(|wanted| field.is(fixed, wanted)))
            }
        }
    }
}

impl FixedField {
    fn is(self, fixed: &Value, wanted: &str) -> bool {
        let text = |name: &str| fixed[name].as_str().unwrap_or_default();
        match self {
            FixedField::Address => text("ip_address") == wanted,
            FixedField::PartOfAddress => text("ip_address").contains(wanted),
            FixedField::Subnet => text("subnet_id") == wanted,
        }
    }
}

/// Empty text is also what null is asked for by.
fn is(value: &Value, wanted: &str) -> bool {
    match value {
        Value::String(text) => text == wanted,
        Value::Bool(flag) => wanted == if *flag { "true" } else { "false" },
        Value::Number(number) => number.to_string() == wanted,
        Value::Null => wanted.is_empty(),
        Value::Array(values) => values.iter().any(|value| is(value, wanted)),
        Value::Object(_) => false,
    }
}

fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => a.as_i64().cmp(&b.as_i64()),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        // Numbers and names of protocols, lists: some order.
        (a, b) => a.to_string().cmp(&b.to_string()),
    }
}

fn limit(value: &str) -> Result<usize, Fault> {
    let bad = || {
        let value = cut(value);
        Fault::bad(format!(
            "Bad limit request: Limit must be an integer 0 or greater and not '{value}'."
        ))
    };
    value.parse().map_err(|_| bad())
}

fn fixed(value: &str) -> Result<(FixedField, String), Fault> {
    let field = FIXED.iter().find_map(|(name, field)| {
        let value = value.strip_prefix(name)?;
        Some((*field, value.to_owned()))
    });
    let why = "ip_address=, ip_address_substr= or subnet_id= is expected";
    field.ok_or_else(|| Fault::input("fixed_ips", why))
}

fn sorts(
    keys: &[&str],
    directions: &[&str],
    attributes: &'static [Attribute],
) -> Result<Vec<(&'static Attribute, Direction)>, Fault> {
    if !directions.is_empty() && keys.len() != directions.len() {
        return Err(Fault::bad(
            "The number of sort_keys and sort_dirs must be same",
        ));
    }
    let find = |key: &&str| attributes.iter().find(|a| a.name == *key && a.filter);
    let unknown: Vec<_> = keys.iter().filter(|key| find(key).is_none()).collect();
    if !unknown.is_empty() {
        let unknown = listed(&unknown);
        let message = format!("{} is invalid attribute for sort_keys", cut(&unknown));
        return Err(Fault::bad(message));
    }
    let directions = directions.iter().map(|direction| match *direction {
        "asc" => Ok(Direction::Ascending),
        "desc" => Ok(Direction::Descending),
        other => Err(Fault::bad(format!(
            "['{}'] is invalid value for sort_dirs, valid value is 'asc' and 'desc'",
            cut(other)
        ))),
    });
    let mut directions = directions.collect::<Result<Vec<_>, _>>()?;
    directions.resize(keys.len(), Direction::Ascending);
    Ok(keys.iter().filter_map(find).zip(directions).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribute::{NAME, Shape, shown};
    use serde_json::json;

    const ATTRIBUTES: &[Attribute] = &[
        shown("id", Shape::Id, ""),
        shown("name", NAME, ""),
        shown("size", Shape::Whole { least: 0, most: 9 }, ""),
        shown("shared", Shape::Flag, ""),
        shown("tags", Shape::List(&NAME), ""),
        shown("fixed_ips", Shape::Anything, ""),
    ];

    fn things() -> Vec<Value> {
        let fixed = |address: &str| json!([{"ip_address": address, "subnet_id": "s"}]);
        vec![
            json!({"id": "1", "name": "b", "size": 1, "shared": false, "tags": [], "fixed_ips": []}),
            json!({"id": "2", "name": "a", "size": 2, "shared": true, "tags": ["x"], "fixed_ips": fixed("10.0.0.2")}),
            json!({"id": "3", "name": "b", "size": 3, "shared": true, "tags": ["x", "y"], "fixed_ips": fixed("10.0.0.3")}),
            json!({"id": "4", "name": null, "size": 4, "shared": false, "tags": ["y"], "fixed_ips": []}),
        ]
    }

    fn list(query: &str) -> Result<Page<Value>, Fault> {
        let wanted = Wanted::read(query, ATTRIBUTES, 100)?;
        let mut things = things();
        things.retain(|thing| wanted.matches(|name| thing[name].clone()));
        wanted.page(things, |thing, name| thing[name].clone(), "http://h/things")
    }

    fn check(query: &str, expected: &str) {
        let got = match list(query) {
            Ok(page) => Vec::from_iter(page.items.iter().filter_map(|i| i["id"].as_str())).join(""),
            Err(fault) => fault.message,
        };
        assert_eq!(got, expected, "{query}");
    }

    #[test]
    fn filters_are_anded_and_their_values_ored() {
        check("", "1234");
        check("name=b", "13");
        check("name=b&name=a", "123");
        check("name=b&size=3", "3");
        check("name=", "4");
        check("shared=True", "23");
        check("shared=0", "14");
        check("tags=x,y", "3");
        check("tags-any=x,y", "234");
        check("not-tags=x,y", "124");
        check("not-tags-any=x,y", "1");
        check("fixed_ips=ip_address%3D10.0.0.2", "2");
        check(
            "fixed_ips=ip_address=10.0.0.2&fixed_ips=ip_address=10.0.0.3",
            "23",
        );
        check("fixed_ips=subnet_id=s&fixed_ips=ip_address_substr=0.3", "3");
        check(
            "colour=red&x=y",
            "['colour', 'x'] is invalid attribute for filtering",
        );
        check("fields=id&fields=size", "1234");
    }

    #[test]
    fn lists_are_sorted() {
        check("sort_key=name&sort_dir=asc", "4213");
        check("sort_key=name", "4213");
        check("sort_key=name&sort_dir=desc", "1324");
        check(
            "sort_key=name&sort_dir=asc&sort_key=size&sort_dir=desc",
            "4231",
        );
        check(
            "sort_key=x&sort_dir=asc",
            "['x'] is invalid attribute for sort_keys",
        );
        check(
            "sort_key=id&sort_dir=up",
            "['up'] is invalid value for sort_dirs, valid value is 'asc' and 'desc'",
        );
        check(
            "sort_dir=asc&sort_dir=asc&sort_key=id",
            "The number of sort_keys and sort_dirs must be same",
        );
    }

    fn pages(query: &str, expected: &str, links: &[(&str, &str)]) {
        check(query, expected);
        let page = list(query).expect("it is a page");
        let got: Vec<_> = page
            .links
            .iter()
            .map(|(rel, link)| (*rel, link.as_str()))
            .collect();
        assert_eq!(got, links, "{query}");
    }

    #[test]
    fn pages_follow_each_other() {
        let next = ("next", "http://h/things?limit=2&marker=2");
        let previous = (
            "previous",
            "http://h/things?limit=2&marker=1&page_reverse=True",
        );
        pages("limit=2", "12", &[next, previous]);
        let next = ("next", "http://h/things?limit=2&marker=4");
        let previous = (
            "previous",
            "http://h/things?limit=2&marker=3&page_reverse=True",
        );
        pages("limit=2&marker=2", "34", &[next, previous]);
        pages(
            "limit=2&marker=4",
            "",
            &[("previous", "http://h/things?limit=2&page_reverse=True")],
        );
        pages("limit=0", "1234", &[]);
        pages("marker=3&limit=0", "4", &[]);
        let next = ("next", "http://h/things?limit=2&marker=2");
        let previous = (
            "previous",
            "http://h/things?limit=2&marker=1&page_reverse=True",
        );
        pages(
            "limit=2&marker=3&page_reverse=True",
            "12",
            &[next, previous],
        );
        pages(
            "limit=2&marker=1&page_reverse=true",
            "",
            &[("next", "http://h/things?limit=2")],
        );
        check(
            "limit=-1",
            "Bad limit request: Limit must be an integer 0 or greater and not '-1'.",
        );
        check("limit=2&marker=9", "The marker '9' is not there");
    }

    #[test]
    fn there_is_a_longest_page() {
        let wanted = Wanted::read("", ATTRIBUTES, 3).expect("it is a query");
        let page = wanted.page(
            things(),
            |thing, name| thing[name].clone(),
            "http://h/things",
        );
        let page = page.expect("it is a page");
        assert_eq!(page.items.len(), 3);
        assert_eq!(
            page.links[0],
            ("next", "http://h/things?limit=3&marker=3".to_owned())
        );
    }
}
