//! Lists: pages by `?limit=` and `?cursor=` with the next one in `Link`, and the filter `?label=`.

use crate::refusal::{Answer, Refusal};
use gaffer_api::error::Code;
use hyper::header::{HeaderMap, LINK};
use std::collections::BTreeMap;

/// Items of a page unless asked otherwise.
pub const USUAL: usize = 200;

/// Items of a page at most.
pub const MOST: usize = 1000;

/// `?limit=`, checked.
pub fn limit(asked: Option<usize>, usual: usize) -> Answer<usize> {
    let limit = asked.unwrap_or(usual);
    if !(1..=MOST).contains(&limit) {
        return Err(Refusal::new(Code::BadValue, format!("limit is 1 to {MOST}")));
    }
    Ok(limit)
}

/// Leaves the page behind `cursor`, in the order of the keys; the cursor of the next page, if there is one.
pub fn cut<T>(
    items: &mut Vec<T>,
    key: impl Fn(&T) -> String,
    limit: usize,
    cursor: Option<&str>,
) -> Option<String> {
    if let Some(cursor) = cursor {
        items.retain(|item| key(item).as_str() > cursor);
    }
    items.sort_by_cached_key(&key);
    let next = items.get(limit).and(items.get(limit - 1)).map(key);
    items.truncate(limit);
    next
}

/// `Link` to the next page, if there is one.
pub fn link(path: &str, parameters: &[(&str, Option<String>)], next: Option<String>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(next) = next {
        let mut parameters = parameters.to_vec();
        parameters.push(("cursor", Some(next)));
        let query = gaffer_api::routes::query(&parameters);
        let link = format!("<{path}{query}>; rel=\"next\"");
        headers.extend(link.try_into().ok().map(|link| (LINK, link)));
    }
    headers
}

/// `?label=zone=eu,tier=front`: what has all of them.
#[derive(Clone, Debug, Default)]
pub struct Labels(Vec<(String, String)>);

impl Labels {
    /// None: everything has them.
    pub fn parse(text: Option<&str>) -> Answer<Labels> {
        let pairs = text.into_iter().flat_map(|text| text.split(','));
        let read = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').filter(|(name, _)| !name.is_empty())?;
            Some((name.to_owned(), value.to_owned()))
        });
        read.collect::<Option<_>>().map(Labels).ok_or_else(|| {
            Refusal::new(Code::BadValue, "a label is written name=value")
                .hint("several with commas: zone=eu,tier=front")
        })
    }

    /// Does it have them? Its own ones count before those of its node.
    pub fn are_of(&self, own: &BTreeMap<String, String>, node: &BTreeMap<String, String>) -> bool {
        let is = |(name, value): &(String, String)| own.get(name).or_else(|| node.get(name)) == Some(value);
        self.0.iter().all(is)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_join_without_gap_or_repeat() {
        let all = || vec!["b", "d", "a", "c", "e"];
        let (mut seen, mut cursor) = (Vec::new(), None);
        for _ in 0..3 {
            let mut page = all();
            cursor = cut(&mut page, |item| (*item).to_owned(), 2, cursor.as_deref());
            seen.extend(page);
        }
        assert_eq!((seen, cursor), (vec!["a", "b", "c", "d", "e"], None));
        let mut whole = all();
        assert_eq!(cut(&mut whole, |item| (*item).to_owned(), 5, None), None);
    }

    #[test]
    fn a_label_of_its_own_counts_before_that_of_its_node() {
        let map = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let (own, node) = (map("zone", "eu"), map("zone", "us"));
        let is = |text| {
            Labels::parse(Some(text))
                .map(|labels| labels.are_of(&own, &node))
                .ok()
        };
        assert_eq!(
            (is("zone=eu"), is("zone=us"), is("zone=eu,tier=front")),
            (Some(true), Some(false), Some(false))
        );
        assert!(Labels::default().are_of(&own, &node));
        for wrong in ["", "zone", "=eu", "zone=eu,"] {
            assert_eq!(is(wrong), None, "{wrong}");
        }
    }
}
