"""Search on GPUs: devices, exact scans, accelerators, and where a snapshot's vectors lie."""
