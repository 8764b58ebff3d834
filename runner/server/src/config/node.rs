//! `[node]` and `[tls]`: who this node is, and who may speak to it.

use std::net::SocketAddr;

use url::Url;

use super::Fields;
use super::fields::text;
use super::model::{Node, Tls};

const MAX_CLIENTS: usize = 256;

pub(super) fn node(fields: &mut Fields<'_>, listen: Option<SocketAddr>) -> Option<Node> {
    let id = fields.required("id", "this node's name in the fleet, such as \"runner-1\"", |value| {
        let id = text(value)?;
        let is_id = id.len() <= 63
            && id.starts_with(|first: char| first.is_ascii_alphanumeric())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        let rule = "must be at most 63 of A-Z, a-z, 0-9, '.', '_' and '-', a letter or digit first";
        is_id.then(|| id.to_owned()).ok_or_else(|| rule.to_owned())
    });
    // An address that clients can reach is also what they are to be told.
    let listen = listen.filter(|address| !address.ip().is_unspecified() && address.port() != 0);
    let url = match listen {
        Some(address) if !fields.has("url") => Some(format!("https://{address}")),
        _ => fields.required("url", "https://HOST:PORT, as the edge reaches this node", |value| {
            node_url(text(value)?)
        }),
    };
    Some(Node { id: id?, url: url? })
}

fn node_url(text: &str) -> Result<String, String> {
    let rule = || "must be https://HOST or https://HOST:PORT, and nothing after it".to_owned();
    let url = Url::parse(text).map_err(|_| rule())?;
    let is_origin = url.scheme() == "https"
        && url.host_str().is_some_and(|host| !host.is_empty())
        && url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none();
    if is_origin { Ok(url.as_str().trim_end_matches('/').to_owned()) } else { Err(rule()) }
}

pub(super) fn tls(fields: &mut Fields<'_>) -> Option<Tls> {
    let certificate = fields.required_path("certificate", "the PEM file of this node's certificate chain");
    let key = fields.required_path("key", "the PEM file of the certificate's private key");
    let client_ca = fields
        .required_path("client_ca", "the PEM file of the authority that issues the clients' certificates");
    let revocation_list = fields.path("revocation_list");
    let is_listed = fields.has("allowed_clients");
    let allowed_clients = fields.list("allowed_clients", MAX_CLIENTS, client_name);
    if !is_listed || allowed_clients.as_ref().is_some_and(Vec::is_empty) {
        fields.violation(
            "allowed_clients",
            "must name who may come in, by the subject alternative names of their certificates, such as [\"edge.example.com\"]",
        );
    }
    Some(Tls {
        certificate: certificate?,
        key: key?,
        client_ca: client_ca?,
        revocation_list,
        allowed_clients: allowed_clients?,
    })
}

/// A DNS name or a URI, as a certificate has it.
fn client_name(value: &toml::Value) -> Result<String, String> {
    let name = text(value)?;
    if name.contains('*') {
        return Err("must be exact: a certificate's whole name, without '*'".to_owned());
    }
    let is_dns_name = name.len() <= 253
        && name.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        });
    if is_dns_name {
        // Certificates are compared without regard to case (RFC 5280, 4.2.1.6 and 7.2).
        return Ok(name.to_ascii_lowercase());
    }
    if name.contains("://") && Url::parse(name).is_ok() {
        return Ok(name.to_owned());
    }
    Err("must be a DNS name such as \"edge.example.com\" or a URI such as \"spiffe://example.com/edge\""
        .to_owned())
}
