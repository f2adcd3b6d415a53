{{ complete_days('image_changes') }}
