//! Directives that are not translated: why they are not needed, or what to do instead.

use super::notes::Notes;
use super::parser::Directive;

const ALWAYS: &str = "not needed: always done";
const OWN: &str = "not needed: wsproxy has its own way";
const TLS: &str = "not needed: rustls speaks TLS 1.2 and 1.3 with its own list of safe ciphers";
const BUFFERS: &str = "not needed: answers are passed on as they come";
const LOGS: &str = "not needed: see [access_log] and [log]";
const STATUS: &str = "not needed: refused handshakes are answered 429 or 503";

enum Kind {
    /// Somewhere else.
    Translated,
    Quiet(&'static str),
    /// With what to do instead.
    Without(&'static str),
}

/// Notes about the directives of a block, and of the servers and locations in it.
pub(super) fn survey(block: &[Directive], notes: &Notes) {
    for directive in block {
        match kind(directive) {
            Kind::Translated => {}
            Kind::Quiet(message) => notes.ignored(directive, message),
            Kind::Without(message) => notes.unsupported(directive, message),
        }
        if matches!(directive.name.as_str(), "server" | "location") {
            survey(directive.children(), notes);
        }
    }
}

fn kind(directive: &Directive) -> Kind {
    let off = directive.arg(0) == "off";
    let name = directive.name.as_str();
    if is_translated(name) {
        return Kind::Translated;
    }
    if let Some(message) = quiet(name) {
        return Kind::Quiet(message);
    }
    if off && is_off_by_default(name) {
        return Kind::Quiet("not needed: it is off");
    }
    Kind::Without(without(name))
}

/// Those that other modules read and note.
fn is_translated(name: &str) -> bool {
    matches!(
        name,
        "server"
            | "location"
            | "upstream"
            | "map"
            | "limit_conn_zone"
            | "limit_req_zone"
            | "listen"
            | "server_name"
            | "ssl"
            | "ssl_certificate"
            | "ssl_certificate_key"
            | "ssl_protocols"
            | "ssl_client_certificate"
            | "ssl_trusted_certificate"
            | "ssl_verify_client"
            | "ssl_reject_handshake"
            | "root"
            | "alias"
            | "index"
            | "try_files"
            | "return"
            | "rewrite"
            | "if"
            | "set"
            | "proxy_pass"
            | "proxy_set_header"
            | "proxy_hide_header"
            | "add_header"
            | "proxy_connect_timeout"
            | "proxy_read_timeout"
            | "proxy_send_timeout"
            | "send_timeout"
            | "client_header_timeout"
            | "keepalive_timeout"
            | "client_max_body_size"
            | "large_client_header_buffers"
            | "limit_conn"
            | "limit_req"
            | "allow"
            | "deny"
            | "set_real_ip_from"
            | "real_ip_header"
            | "real_ip_recursive"
            | "auth_basic"
            | "auth_request"
            | "auth_basic_user_file"
            | "auth_request_set"
            | "auth_jwt"
            | "satisfy"
            | "limit_except"
            | "internal"
            | "fastcgi_pass"
            | "uwsgi_pass"
            | "scgi_pass"
            | "grpc_pass"
            | "memcached_pass"
            | "stub_status"
            | "empty_gif"
            | "content_by_lua_block"
            | "content_by_lua_file"
            | "access_by_lua_block"
            | "access_by_lua_file"
            | "proxy_bind"
            | "proxy_ssl_verify"
            | "proxy_ssl_trusted_certificate"
            | "proxy_ssl_name"
            | "proxy_ssl_certificate"
            | "proxy_ssl_certificate_key"
            | "proxy_next_upstream"
            | "proxy_redirect"
    )
}

/// Those without which nothing is missing.
fn quiet(name: &str) -> Option<&'static str> {
    Some(match name {
        "proxy_http_version" => "not needed: HTTP/1.1 is always spoken to the upstream",
        "proxy_buffering"
        | "proxy_buffer_size"
        | "proxy_buffers"
        | "proxy_busy_buffers_size"
        | "proxy_request_buffering"
        | "proxy_max_temp_file_size"
        | "proxy_temp_path"
        | "proxy_temp_file_write_size"
        | "postpone_output"
        | "output_buffers" => BUFFERS,
        "proxy_next_upstream_timeout" | "proxy_next_upstream_tries" => {
            "not needed: another server is tried as long as nothing was sent to the first one"
        }
        "proxy_socket_keepalive"
        | "tcp_nodelay"
        | "proxy_ssl_server_name"
        | "proxy_ssl_session_reuse"
        | "proxy_ignore_client_abort" => ALWAYS,
        "access_log"
        | "error_log"
        | "log_format"
        | "log_not_found"
        | "log_subrequest"
        | "open_log_file_cache"
        | "rewrite_log" => LOGS,
        "limit_conn_status"
        | "limit_req_status"
        | "limit_conn_log_level"
        | "limit_req_log_level"
        | "proxy_connection_upgrade" => STATUS,
        "ssl_session_cache"
        | "ssl_session_timeout"
        | "ssl_session_tickets"
        | "ssl_prefer_server_ciphers"
        | "ssl_ciphers"
        | "ssl_dhparam"
        | "ssl_ecdh_curve"
        | "ssl_buffer_size"
        | "ssl_verify_depth"
        | "ssl_conf_command"
        | "ssl_early_data"
        | "proxy_ssl_protocols"
        | "proxy_ssl_ciphers"
        | "proxy_ssl_verify_depth" => TLS,
        "ssl_stapling" | "ssl_stapling_verify" | "ssl_stapling_file" | "ssl_stapling_responder" => {
            "not needed: no OCSP answers are sent along"
        }
        "gzip" | "gzip_types" | "gzip_vary" | "gzip_proxied" | "gzip_comp_level"
        | "gzip_min_length" | "gzip_buffers" | "gzip_http_version" | "gzip_disable"
        | "gzip_static" | "brotli" | "brotli_types" | "brotli_comp_level" | "brotli_static" => {
            "not needed: answers are not compressed"
        }
        "http2" | "http3" | "http2_max_concurrent_streams" | "http2_push_preload" => {
            "not needed: clients speak HTTP/1.1, as WebSockets do"
        }
        "worker_processes" | "worker_cpu_affinity" => "not needed: see datapath.workers",
        "worker_connections" | "worker_rlimit_nofile" => "not needed: see limits.max_sessions",
        "user"
        | "pid"
        | "daemon"
        | "master_process"
        | "worker_priority"
        | "load_module"
        | "pcre_jit"
        | "lock_file"
        | "env"
        | "working_directory"
        | "thread_pool"
        | "timer_resolution"
        | "worker_shutdown_timeout"
        | "worker_aio_requests"
        | "debug_points" => OWN,
        "events" => OWN,
        "types" | "default_type" | "charset" | "charset_types" | "override_charset" => {
            "not needed: the types of files are built in"
        }
        "resolver" | "resolver_timeout" => {
            "not needed: the system's resolver is used, see upstream.resolve"
        }
        "client_body_timeout"
        | "client_body_buffer_size"
        | "client_body_temp_path"
        | "client_body_in_file_only"
        | "client_body_in_single_buffer"
        | "client_header_buffer_size"
        | "connection_pool_size"
        | "request_pool_size"
        | "keepalive_requests"
        | "keepalive_time"
        | "keepalive_disable"
        | "sendfile"
        | "sendfile_max_chunk"
        | "tcp_nopush"
        | "aio"
        | "aio_write"
        | "directio"
        | "read_ahead"
        | "open_file_cache"
        | "open_file_cache_valid"
        | "open_file_cache_min_uses"
        | "open_file_cache_errors"
        | "server_tokens"
        | "server_names_hash_bucket_size"
        | "server_names_hash_max_size"
        | "types_hash_max_size"
        | "types_hash_bucket_size"
        | "variables_hash_max_size"
        | "variables_hash_bucket_size"
        | "map_hash_max_size"
        | "map_hash_bucket_size"
        | "proxy_headers_hash_max_size"
        | "proxy_headers_hash_bucket_size"
        | "lingering_close"
        | "lingering_time"
        | "lingering_timeout"
        | "reset_timedout_connection"
        | "merge_slashes"
        | "absolute_redirect"
        | "port_in_redirect"
        | "server_name_in_redirect"
        | "underscores_in_headers"
        | "ignore_invalid_headers"
        | "chunked_transfer_encoding"
        | "etag"
        | "if_modified_since"
        | "max_ranges"
        | "msie_padding"
        | "recursive_error_pages"
        | "proxy_pass_header"
        | "zone"
        | "ssl_ocsp"
        | "uninitialized_variable_warn"
        | "fastcgi_index"
        | "fastcgi_param"
        | "fastcgi_split_path_info"
        | "uwsgi_param" => OWN,
        _ => return None,
    })
}

fn is_off_by_default(name: &str) -> bool {
    matches!(
        name,
        "proxy_cache"
            | "proxy_store"
            | "autoindex"
            | "proxy_intercept_errors"
            | "expires"
            | "proxy_cache_lock"
            | "mirror"
            | "limit_rate"
            | "proxy_cookie_domain"
            | "proxy_cookie_path"
            | "ssi"
            | "proxy_force_ranges"
    )
}

/// What to do without a directive.
fn without(name: &str) -> &'static str {
    match name {
        "stream" | "mail" => "only HTTP and WebSockets are proxied: keep nginx for this block",
        "geo" | "split_clients" | "js_import" | "js_set" | "perl_set" => {
            "there are no variables of one's own: make a [[route]] per case"
        }
        "error_page" => {
            "there are no error pages; for a page instead of a missing file see route.fallback"
        }
        "autoindex" => "directories are not listed",
        "expires" => "set Cache-Control with route.add_response_headers",
        "health_check" | "check" => "see [upstream.health]",
        "limit_rate" | "limit_rate_after" | "proxy_limit_rate" => "rates of bytes are not limited",
        "proxy_cookie_domain" | "proxy_cookie_path" | "proxy_cookie_flags" => {
            "cookies are passed on as they are: change them in the application"
        }
        "sub_filter" | "sub_filter_once" | "sub_filter_types" | "ssi" | "addition_types" => {
            "answers are passed on as they are"
        }
        "valid_referers" => {
            "the Referer is not looked at; for pages that connect see route.origins"
        }
        "ssl_password_file" => "keys must not be encrypted: write one without a password",
        "ssl_crl" => "certificates are not checked against lists of revoked ones",
        "more_set_headers" | "more_clear_headers" | "more_set_input_headers" => {
            "see route.set_response_headers, remove_response_headers and set_request_headers"
        }
        "proxy_intercept_errors" => "the upstream's error pages are passed on",
        "location" | "proxy_pass" => "it stands outside a server",
        _ if name.starts_with("proxy_cache") => "nothing is cached",
        _ => "there is nothing like it here",
    }
}
