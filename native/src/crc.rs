//! CRC-32C for the write-ahead log and for snapshots. The hardware instruction does 10-20 GB/s; Python has none of it.

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// CRC-32C (Castagnoli) of `data`, continued from `crc`.
#[pyfunction]
#[pyo3(signature = (data, crc = 0))]
pub fn crc32c(py: Python<'_>, data: &Bound<'_, PyAny>, crc: u32) -> PyResult<u32> {
    if let Ok(bytes) = data.downcast::<PyBytes>() {
        return Ok(::crc32c::crc32c_append(crc, bytes.as_bytes()));
    }
    let buffer = PyBuffer::<u8>::get(data)?;
    let cells = buffer.as_slice(py).ok_or_else(|| PyBufferError::new_err("crc32c needs a contiguous buffer"))?;
    // SAFETY: `cells` covers the buffer, which stays exported, and the GIL is held, so that no Python code writes to it.
    let bytes = unsafe { std::slice::from_raw_parts(cells.as_ptr().cast::<u8>(), cells.len()) };
    Ok(::crc32c::crc32c_append(crc, bytes))
}
