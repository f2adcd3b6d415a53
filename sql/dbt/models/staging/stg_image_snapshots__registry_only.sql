{{ complete_days('registry_only') }}
