{{ complete_days('image_storage') }}
