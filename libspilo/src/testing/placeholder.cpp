// Placeholder translation unit; replaced by the first source of this folder.
