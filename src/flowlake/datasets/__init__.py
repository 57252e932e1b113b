"""Every dataset, declared once; schema, audits, views and documentation are rendered from these declarations."""
