{{ complete_days('audit_findings') }}
