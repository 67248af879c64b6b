//! The native half of pyetcd: the wire (gRPC and HTTP), the log thread, CRC-32C, lookups in pages, and a small
//! gRPC client.
//!
//! It moves bytes and knows nothing of etcd. Nothing here calls back into Python: the loop watches one descriptor
//! (`wake`), drains events and hands back answers. `src/pyetcd/_native.pyi` says the same to Python.

mod appender;
mod client;
mod crc;
mod crypto;
mod dial;
mod pages;
mod server;
mod socket;
mod wake;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("UNARY", server::UNARY)?;
    module.add("OPEN", server::OPEN)?;
    module.add("MESSAGE", server::MESSAGE)?;
    module.add("HALF_CLOSE", server::HALF_CLOSE)?;
    module.add("CANCEL", server::CANCEL)?;
    module.add("WRITABLE", server::WRITABLE)?;
    module.add("HTTP", server::HTTP)?;
    module.add("RESPONSE", server::RESPONSE)?;
    module.add("FAILED", server::FAILED)?;
    module.add("REJECTED", server::REJECTED)?;
    module.add_class::<wake::Wake>()?;
    module.add_class::<appender::Appender>()?;
    module.add_class::<server::Limits>()?;
    module.add_class::<server::Tls>()?;
    module.add_class::<server::Meta>()?;
    module.add_class::<server::HttpRequest>()?;
    module.add_class::<server::HttpResponse>()?;
    module.add_class::<dial::ClientTls>()?;
    module.add_class::<server::Server>()?;
    module.add_class::<client::Channel>()?;
    module.add_class::<client::ClientStream>()?;
    module.add_class::<client::Calls>()?;
    module.add("RpcError", module.py().get_type::<client::RpcError>())?;
    module.add_function(wrap_pyfunction!(crc::crc32c, module)?)?;
    module.add_function(wrap_pyfunction!(pages::find_many, module)?)?;
    Ok(())
}
