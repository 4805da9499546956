//! Sessions that outlive the process (`datapath.persist`): what the next one has to know of their
//! places in counts, and where it counts them.

use serde_json::{Value, json};

use super::{
    access::{Note, RequestId},
    setup::Setup,
    upgrade::{Luggage, Places, client_tables},
};
use crate::{
    datapath::SessionMeta,
    forwarding::{ClientKey, request_id},
};

/// What a session takes with it, for the next process. `seed` is what ids of requests are made of.
pub(super) fn save(luggage: &Luggage, seed: u64) -> Value {
    let Luggage { places, held, note } = luggage;
    let note = match &note.request_id {
        RequestId::Ours(number) => note.saved(&request_id(seed, *number)),
        RequestId::Foreign(id) => note.saved(id),
    };
    json!({
        "note": note,
        "listener": places.on_listener.as_ref().map(|counted| counted.name()),
        "upstream": held.as_ref().map(|held| held.group()),
    })
}

/// Counts a session of an earlier process where this configuration has what it belongs to, whatever
/// the limits are: it is there. `missing` hears of what there is not: its kind, its name. `None`:
/// what was saved is damaged.
pub(super) fn restore(
    setup: &Setup,
    meta: &SessionMeta,
    saved: &Value,
    mut missing: impl FnMut(&'static str, &str),
) -> Option<Luggage> {
    let note = Note::restored(saved.get("note")?)?;
    let name_of = |key: &str| saved[key].as_str();
    let listener = name_of("listener").and_then(|name| {
        let listener = setup.listeners.get(name);
        listener.is_none().then(|| missing("listener", name));
        listener
    });
    let route = setup.routes.iter().find(|route| route.name == meta.route);
    if route.is_none() {
        missing("route", &meta.route);
    }
    let held = name_of("upstream").and_then(|name| {
        let held = setup.upstreams.get(name).and_then(|group| group.hold_again(&meta.upstream));
        held.is_none().then(|| missing("upstream server", &meta.upstream));
        held
    });
    let key = ClientKey::new(note.client, setup.config.limits.ipv6_prefix);
    let tables = client_tables(setup, route.map(AsRef::as_ref));
    let places = Places {
        on_listener: listener.and_then(|listener| listener.count.enter(None)),
        _on_route: route.and_then(|route| route.count.enter(None)),
        _of_client: tables.filter_map(|(table, _)| table.enter(key, u32::MAX)).collect(),
    };
    Some(Luggage { places, held, note })
}
