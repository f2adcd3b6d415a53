{{ complete_days('audit_rules') }}
