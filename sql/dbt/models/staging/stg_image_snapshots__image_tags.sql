{{ complete_days('image_tags') }}
