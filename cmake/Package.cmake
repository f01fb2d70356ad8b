# Install and export; filled by the components through spilo_component().
