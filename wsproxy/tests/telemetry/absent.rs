//! A build without the feature.

use crate::{
    CALLER, TRACE, start,
    support::{Server, header, request, status, switch},
};

const ABSENT: &str =
    "this build has no OpenTelemetry (cargo feature \"otel\"): no spans are exported";

#[test]
fn it_says_that_it_has_no_opentelemetry_where_that_is_wanted() {
    let server = Server::start();
    let collector = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
    let proxy = start(&[server.address], "", &[collector]);
    assert_eq!(proxy.all_logged(ABSENT).len(), 1);
    for variables in [vec![], vec![collector, ("OTEL_SDK_DISABLED", "true")]] {
        let proxy = start(&[server.address], "", &variables);
        assert_eq!(proxy.all_logged(ABSENT).len(), 0, "{variables:?}");
    }
}

#[test]
fn a_trace_passes_through() {
    let server = Server::start();
    let proxy = start(&[server.address], "", &[]);
    let parent = format!("00-{TRACE}-{CALLER}-01");
    let mut client = proxy.connect();
    client.send(request(&format!("traceparent: {parent}\r\n")).as_bytes());
    let mut upstream = server.accept();
    assert_eq!(header(&upstream.head(), "traceparent"), [parent]);
    upstream.send(switch("").as_bytes());
    assert_eq!(status(&client.head()), 101);
}
