"""Words of reports: BM25 over text columns, aware of negation, alone or fused with vectors."""
