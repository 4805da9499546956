//! Which directives hold where: each level's own, else those of the level around it.

use std::collections::HashMap;
use std::rc::Rc;

use super::parser::Directive;

/// How deep a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Http,
    Server,
    Location,
}

/// The directives of one block, and the blocks around it.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    pub level: Level,
    by_name: HashMap<&'a str, Vec<&'a Directive>>,
    block: &'a [Directive],
    parent: Option<Rc<Scope<'a>>>,
}

impl<'a> Scope<'a> {
    pub(super) fn top(block: &'a [Directive]) -> Rc<Self> {
        Rc::new(Self { level: Level::Http, by_name: by_name(block), block, parent: None })
    }

    /// Of a block inside this one.
    pub(super) fn inner(self: &Rc<Self>, level: Level, block: &'a [Directive]) -> Rc<Self> {
        Rc::new(Self { level, by_name: by_name(block), block, parent: Some(Rc::clone(self)) })
    }

    /// Those of this block alone: what is not inherited.
    pub(super) fn own(&self, name: &str) -> &[&'a Directive] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether this block has one.
    pub(super) fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Those of the innermost block that has any: a list is inherited as a whole or not at all.
    pub(super) fn all(&self, name: &str) -> &[&'a Directive] {
        match (self.own(name), &self.parent) {
            ([], Some(parent)) => parent.all(name),
            (own, _) => own,
        }
    }

    /// The one that holds.
    pub(super) fn find(&self, name: &str) -> Option<&'a Directive> {
        self.all(name).last().copied()
    }

    /// Its first argument.
    pub(super) fn word(&self, name: &str) -> Option<&'a str> {
        self.find(name).map(|directive| directive.arg(0))
    }

    /// Those of this block with one of two names, in their order.
    pub(super) fn either(&self, one: &str, other: &str) -> impl Iterator<Item = &'a Directive> {
        let block = if self.has(one) || self.has(other) { self.block } else { &[] };
        let fits = move |name: &str| name == one || name == other;
        block.iter().filter(move |directive| fits(&directive.name))
    }

    /// Where the one that holds stands.
    pub(super) fn level_of(&self, name: &str) -> Option<Level> {
        match &self.parent {
            _ if self.has(name) => Some(self.level),
            Some(parent) => parent.level_of(name),
            None => None,
        }
    }

    /// The block around this one.
    pub(super) fn parent(&self) -> Option<&Scope<'a>> {
        self.parent.as_deref()
    }

    /// The block of the server around this one, or this one.
    pub(super) fn server(&self) -> &Scope<'a> {
        match &self.parent {
            Some(parent) if self.level == Level::Location => parent.server(),
            _ => self,
        }
    }
}

fn by_name(block: &[Directive]) -> HashMap<&str, Vec<&Directive>> {
    let mut map: HashMap<&str, Vec<&Directive>> = HashMap::new();
    for directive in block {
        map.entry(directive.name.as_str()).or_default().push(directive);
    }
    map
}
