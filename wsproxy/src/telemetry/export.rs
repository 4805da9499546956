//! Sends spans to a collector: OTLP over HTTP, in batches, from a thread of the SDK's.

use std::time::Duration;

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tokio::runtime;

use super::{post::Post, spans};

/// At the end, how long the last spans may take before they are lost.
const PATIENCE: Duration = Duration::from_secs(2);
/// Who the spans are from, unless the environment says else.
const SERVICE: &str = "wsproxy";

/// Why nothing can be exported.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// What sends spans, or nothing where none are wanted.
#[derive(Debug)]
pub struct Exporting(Option<SdkTracerProvider>);

/// Begins to export spans if the environment names a collector. What is wrong with that is a
/// line of the log: a gateway without spans is still one.
///
/// Connections to the collector live on `runtime`, which must outlive [`Exporting::stop`].
pub fn start(runtime: &runtime::Handle) -> Exporting {
    let Some(collector) = super::collector() else { return Exporting(None) };
    let exporter = exporter(runtime, &collector);
    let collector = super::shown(&collector);
    match exporter {
        Ok(exporter) => {
            // The SDK reads the sampler, the bounds of the queue and the batches' pace from the
            // environment; by default 2,048 spans wait at most, and what comes then is dropped.
            let provider = SdkTracerProvider::builder()
                .with_batch_exporter(exporter)
                .with_resource(resource())
                .build();
            spans::trace_with(provider.tracer(SERVICE));
            tracing::info!(collector, "spans of handshakes are exported");
            Exporting(Some(provider))
        }
        Err(error) => {
            tracing::warn!(collector, %error, "spans can't be exported");
            Exporting(None)
        }
    }
}

fn exporter(runtime: &runtime::Handle, collector: &str) -> Result<SpanExporter, Error> {
    let post = Post::new(runtime, collector)?;
    Ok(SpanExporter::builder().with_http().with_http_client(post).build()?)
}

fn resource() -> Resource {
    let builder = || {
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        Resource::builder().with_attribute(version)
    };
    let given = builder().build();
    // What the SDK says where neither OTEL_SERVICE_NAME nor OTEL_RESOURCE_ATTRIBUTES has a name.
    let unknown = |name: opentelemetry::Value| name.as_str().starts_with("unknown_service");
    if given.get(&"service.name".into()).is_none_or(unknown) {
        builder().with_service_name(SERVICE).build()
    } else {
        given
    }
}

impl Exporting {
    /// Sends what is left, within 2 s, and ends. Blocks; the runtime of [`start`] must still run.
    pub fn stop(self) {
        if let Some(provider) = self.0
            && let Err(error) = provider.shutdown_with_timeout(PATIENCE)
        {
            tracing::debug!(%error, "the last spans may be lost");
        }
    }
}
